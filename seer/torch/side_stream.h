#pragma once
// Independent work on a GPU at the same time: one piece bound by memory, say, beside one bound by
// arithmetic.

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>

#include <optional>

namespace seer::torch_ops {

// Between its construction and leave(), work is enqueued on a stream of its own, which has waited for
// what was enqueued before. Its blocks go first where both streams want room: give it the work of fewer
// blocks. On a CPU nothing changes. Nothing waits on the host, and a CUDA graph that
// is being captured holds both branches. For work without gradients.
class SideStream {
 public:
  explicit SideStream(const c10::Device& device);
  // Back to the stream that was current.
  void leave();
  // The current stream waits for the work, whose result is `x`. Call it before x is used.
  at::Tensor join(const at::Tensor& x);

 private:
  std::optional<c10::StreamGuard> guard_;
  std::optional<c10::Event> done_;
};

}  // namespace seer::torch_ops
