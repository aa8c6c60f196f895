#pragma once
// How long work takes where it runs: on a GPU the host is far ahead of it.

#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <chrono>
#include <memory>
#include <utility>
#include <vector>

namespace seer::models {

// A sum of seconds: by the host's clock for work on the CPU, by events of the current stream for work
// on a GPU. Only reading the sum waits for the GPU.
class DeviceTime {
 public:
  // Adds the time of its life to the sum, which outlives it.
  class Span {
   public:
    Span(DeviceTime& time, const c10::Device& device);
    ~Span();
    Span(const Span&) = delete;
    Span& operator=(const Span&) = delete;

   private:
    DeviceTime& time_;
    c10::Device device_;
    std::chrono::steady_clock::time_point begin_;
    std::shared_ptr<c10::Event> event_;  // null on the CPU
  };

  double seconds() const;

 private:
  using Events = std::pair<std::shared_ptr<c10::Event>, std::shared_ptr<c10::Event>>;
  double host_seconds_ = 0;
  std::vector<Events> events_;
};

}  // namespace seer::models
