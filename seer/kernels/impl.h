#pragma once
// How an op finds its kernel: an ordered list of implementations, each able to say why not.

#include <span>
#include <string>

#include "seer/base/error.h"

// A function of a GPU's kernel; null in a build without them.
#ifdef SEER_CUDA
#define SEER_IF_CUDA(function) function
#else
#define SEER_IF_CUDA(function) nullptr
#endif

namespace seer::kernels {

// The device a call runs on. `sm` is 0 on the CPU.
struct Device {
  int sm = 0;       // 80, 86, 89, 90 ...
  int num_sms = 0;  // multiprocessors; 0 on the CPU
};

// Compute capabilities that a kernel is for; the default is the CPU.
struct Chips {
  int first = 0, last = 0;
  constexpr bool include(const Device& device) const {
    return device.sm >= first && device.sm <= last;
  }
};
inline constexpr Chips kSm80 = {80, 999}, kSm90 = {90, 90}, kCpu = {};

// Why a kernel for these chips does not run on the device; empty: it does.
std::string why_not_device(const Chips& chips, const Device& device);

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
  const char* name;  // "sm90", "sm80", "cpu"
  Chips chips;
  void (*run)(const Params&, void* stream);
  std::string (*why_not_call)(const Params&) = nullptr;  // null: takes every call
  // What a call loses that an earlier kernel for the same chip refuses; null: little.
  const char* loses = nullptr;

  // Empty: it takes the call.
  std::string why_not(const Params& p, const Device& device) const {
    std::string reason = why_not_device(chips, device);
    return reason.empty() && why_not_call ? why_not_call(p) : reason;
  }
};

// Empty, or what a call loses by running on `impl`, and why no faster kernel takes it.
template <class Params>
std::string why_slower(std::span<const Impl<Params>> impls, const Impl<Params>& impl,
                       const Params& p, const Device& device) {
  for (const auto& faster : impls) {
    if (&faster == &impl || !impl.loses) return "";
    if (faster.chips.include(device)) {
      return message(impl.loses, " (", faster.name, ": ", faster.why_not(p, device), ")");
    }
  }
  return "";
}

// Prints that the op runs on a slower kernel, once a process.
void warn_slower(const char* op, const char* implementation, const std::string& why);

// The first implementation that takes the call; a slower one comes with a warning. When none does, the
// error carries every implementation's reason.
template <class Params>
const Impl<Params>& select(const char* op, std::span<const Impl<Params>> impls, const Params& p,
                           const Device& device) {
  std::string reasons;
  for (const auto& impl : impls) {
    const std::string reason = impl.why_not(p, device);
    if (reason.empty()) {
      const std::string slower = why_slower(impls, impl, p, device);
      if (!slower.empty()) warn_slower(op, impl.name, slower);
      return impl;
    }
    reasons += std::string(reasons.empty() ? "" : "; ") + impl.name + ": " + reason;
  }
  fail(op, ": no implementation takes this call (", reasons, ")");
}

}  // namespace seer::kernels
