#pragma once
// Tensors of a GPU on their way to or from host memory, in pieces through two pinned buffers: one travels
// while the other is worked on.

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

namespace seer::train {

class Staging {
 public:
  // `piece`: the most elements of a tensor that travel at once.
  explicit Staging(const at::Device& device, int64_t piece = 16 << 20);

  // Elements [begin, begin + n) of tensor i, counted over all its axes; `buffer` [n] is in host memory.
  using Work = std::function<void(size_t i, int64_t begin, const at::Tensor& buffer)>;
  // Calls `work` with what contiguous tensors of one type hold, a piece at a time, in order.
  void down(const std::vector<at::Tensor>& tensors, const Work& work);
  // The other way: `work` fills the buffer, which then goes to its place.
  void up(const std::vector<at::Tensor>& tensors, const Work& work);

 private:
  struct Buffer {
    at::Tensor bytes;
    std::optional<c10::Event> done;  // its last copy; none on a CPU
  };
  const at::Device device_;
  const int64_t piece_;
  Buffer buffers_[2];

  at::Tensor buffer(size_t i, int64_t elements, at::ScalarType dtype);
  void record(size_t i);
};

}  // namespace seer::train
