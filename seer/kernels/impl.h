#pragma once
// How an op finds its kernel: an ordered list of implementations, each able to say why not.

#include <span>
#include <string>

#include "seer/base/error.h"

namespace seer::kernels {

// The device a call runs on. `sm` is 0 on the CPU.
struct Device {
  int sm = 0;       // 80, 86, 89, 90 ...
  int num_sms = 0;  // multiprocessors; 0 on the CPU
};

// Why a CPU version does not run on this device; empty: it does.
std::string why_not_cpu(const Device& device);
// Why a GPU kernel for compute capabilities `first` to `last` does not run here; empty: it does.
std::string why_not_gpu(const Device& device, int first, int last);

// The same, as an entry of Impl for an operation whose CPU version takes every call.
template <class Params>
std::string why_not_cpu(const Params&, const Device& device) {
  return why_not_cpu(device);
}

// The CUDA device of this index. Error: there is none, or the build has no CUDA kernels.
Device cuda_device(int index);
// As the driver calls it: "NVIDIA H200".
std::string cuda_device_name(int index);
// How many there are; 0 without a GPU, a driver, or CUDA kernels in the build.
int num_cuda_devices();
// Whether a CUDA graph is being captured on this stream of the current device.
bool is_capturing(void* stream);

// One implementation of the op whose parameters are `Params`.
template <class Params>
struct Impl {
  const char* name;                                      // "sm90", "sm80", "cpu"
  std::string (*why_not)(const Params&, const Device&);  // empty: this call is supported
  void (*run)(const Params&, void* stream);
};

// The first implementation that takes the call. There is no silent fallback: when none does, the
// error carries every implementation's reason.
template <class Params>
const Impl<Params>& select(const char* op, std::span<const Impl<Params>> impls, const Params& p,
                           const Device& dev) {
  std::string reasons;
  for (const auto& impl : impls) {
    const std::string reason = impl.why_not(p, dev);
    if (reason.empty()) {
      return impl;
    }
    reasons += std::string(reasons.empty() ? "" : "; ") + impl.name + ": " + reason;
  }
  fail(op, ": no implementation takes this call (", reasons, ")");
}

}  // namespace seer::kernels
