#include "seer/models/device_time.h"

#include <c10/core/impl/VirtualGuardImpl.h>

namespace seer::models {
namespace {

std::shared_ptr<c10::Event> record_event(const c10::Device& device) {
  // This flag is the one with which events keep their time.
  auto event = std::make_shared<c10::Event>(device.type(), c10::EventFlag::BACKEND_DEFAULT);
  event->record(c10::impl::VirtualGuardImpl(device.type()).getStream(device));
  return event;
}

}  // namespace

DeviceTime::Span::Span(DeviceTime& time, const c10::Device& device)
    : time_(time), device_(device), begin_(std::chrono::steady_clock::now()) {
  if (!device.is_cpu()) event_ = record_event(device);
}

DeviceTime::Span::~Span() {
  if (event_) {
    try {
      time_.events_.emplace_back(event_, record_event(device_));
    } catch (const std::exception&) {
      // The device has failed: the call whose time this is says so itself.
    }
    return;
  }
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - begin_;
  time_.host_seconds_ += spent.count();
}

double DeviceTime::seconds() const {
  double sum = host_seconds_;
  for (const auto& [begin, end] : events_) {
    end->synchronize();
    sum += 1e-3 * begin->elapsedTime(*end);
  }
  return sum;
}

}  // namespace seer::models
