#pragma once
// Time that work on a device takes: the host's clock on a CPU, events on a GPU, where nothing waits
// until the sum is asked for.

#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <chrono>
#include <utility>
#include <vector>

namespace seer::torch_ops {

class Stopwatch {
 public:
  explicit Stopwatch(const c10::Device& device) : device_(device) {}

  // Adds what is enqueued on the current stream between here and the end of the result's life.
  class Span {
   public:
    explicit Span(Stopwatch& watch);
    ~Span();
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;

   private:
    Stopwatch& watch_;
    std::chrono::steady_clock::time_point begin_;
  };
  Span span() { return Span(*this); }

  // Of all spans so far; waits for them.
  double seconds();
  void reset();

 private:
  using Events = std::pair<c10::Event, c10::Event>;
  c10::Device device_;
  double seconds_ = 0;
  std::vector<Events> pending_;
};

// Waits until everything on the device's current stream is done; nothing on a CPU.
void synchronize(const c10::Device& device);

}  // namespace seer::torch_ops
