#include "seer/bench/peak_memory.h"

#include <ATen/ops/empty.h>
#include <c10/core/CachingDeviceAllocator.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "seer/base/error.h"

namespace seer::bench {
namespace {

constexpr double kMib = 1024 * 1024;

// A line of /proc/self/status, in MiB.
double status_mib(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name + ":")) return std::stod(line.substr(name.size() + 1)) / 1024;
  }
  fail("/proc/self/status has no ", name);
}

c10::DeviceIndex index_of(const c10::Device& device) {
  return std::max<c10::DeviceIndex>(device.index(), 0);
}
c10::CachingAllocator::Stat bytes_on(const c10::Device& device) {
  return c10::getDeviceAllocator(device.type())
      ->getDeviceStats(index_of(device))
      .allocated_bytes[0];
}

}  // namespace

PeakMemory::PeakMemory(const c10::Device& device) : device_(device) {
  if (device.is_cuda()) {
    at::empty({1}, device);  // its allocator exists from the first allocation on
    before_ = static_cast<double>(bytes_on(device).current) / kMib;
  } else {
    before_ = status_mib("VmRSS");
  }
  restart();
}

void PeakMemory::restart() {
  if (device_.is_cuda()) {
    c10::getDeviceAllocator(device_.type())->resetPeakStats(index_of(device_));
  } else {
    std::ofstream("/proc/self/clear_refs") << "5";  // the peak counts anew (proc(5))
  }
}

double PeakMemory::mib() const {
  const double peak =
      device_.is_cuda() ? static_cast<double>(bytes_on(device_).peak) / kMib : status_mib("VmHWM");
  return peak - before_;
}

}  // namespace seer::bench
