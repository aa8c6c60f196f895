#pragma once
// The most memory that something takes.

#include <c10/core/Device.h>

namespace seer::bench {

// Memory of tensors on a GPU, of the process on a CPU, beyond what was there at the beginning.
class PeakMemory {
 public:
  explicit PeakMemory(const c10::Device& device);
  double mib() const;
  // The peak counts anew from what is in use now; what is counted from stays.
  void restart();

 private:
  c10::Device device_;
  double before_;
};

}  // namespace seer::bench
