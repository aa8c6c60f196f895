#pragma once
// Work on a GPU that runs beside what the current stream is given meanwhile.

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <functional>
#include <optional>

namespace seer::torch_ops {

class Beside {
 public:
  // `make` enqueues the work, on a stream of this thread's own, which begins after what the current stream was given before.
  // On a CPU it runs at once.
  Beside(const at::Device& device, const std::function<at::Tensor()>& make);
  ~Beside();
  Beside(const Beside&) = delete;
  Beside& operator=(const Beside&) = delete;

  // What `make` made, for the current stream, which waits for it. Once.
  at::Tensor take();

 private:
  void join();

  at::Tensor made_;
  c10::Stream current_;
  std::optional<c10::Event> done_;  // what the current stream has not waited for yet
};

}  // namespace seer::torch_ops
