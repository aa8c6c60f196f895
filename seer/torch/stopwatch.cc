#include "seer/torch/stopwatch.h"

#include <c10/core/impl/VirtualGuardImpl.h>

namespace seer::torch_ops {
namespace {

using Clock = std::chrono::steady_clock;

c10::Stream stream_of(const c10::Device& device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

c10::Event recorded(const c10::Device& device) {
  c10::Event event(device.type(), c10::EventFlag::BACKEND_DEFAULT);  // with a time
  event.record(stream_of(device));
  return event;
}

}  // namespace

Stopwatch::Span::Span(Stopwatch& watch) : watch_(watch), begin_(Clock::now()) {
  if (!watch_.device_.is_cpu()) {
    watch_.pending_.emplace_back(recorded(watch_.device_), recorded(watch_.device_));
  }
}

Stopwatch::Span::~Span() {
  if (watch_.device_.is_cpu()) {
    watch_.seconds_ += std::chrono::duration<double>(Clock::now() - begin_).count();
  } else {
    watch_.pending_.back().second.record(stream_of(watch_.device_));
  }
}

double Stopwatch::seconds() {
  for (auto& [begin, end] : pending_) {
    end.synchronize();
    seconds_ += 1e-3 * begin.elapsedTime(end);
  }
  pending_.clear();
  return seconds_;
}

void Stopwatch::reset() {
  seconds_ = 0;
  pending_.clear();
}

void synchronize(const c10::Device& device) {
  if (!device.is_cpu()) recorded(device).synchronize();
}

}  // namespace seer::torch_ops
