#include "seer/kernels/impl.h"

#include <mutex>
#include <set>

#include "seer/base/progress.h"

#ifdef SEER_CUDA
#include <cuda_runtime_api.h>
#endif

namespace seer::kernels {

std::string why_not_device(const Chips& chips, const Device& device) {
#ifndef SEER_CUDA
  if (chips.last != 0) return "built without CUDA kernels";
#endif
  if (chips.include(device)) return "";
  if (chips.last == 0) return "the tensors are on a GPU";
  if (device.sm == 0) return "the tensors are on the CPU";
  return message("needs compute capability ", chips.first / 10, ".", chips.first % 10,
                 chips.first == chips.last ? "" : " or later", ", this GPU has ", device.sm / 10,
                 ".", device.sm % 10);
}

void warn_slower(const char* op, const char* implementation, const std::string& why) {
  static std::mutex mutex;
  static std::set<std::string> warned;
  const std::lock_guard lock(mutex);
  if (!warned.insert(message(op, implementation)).second) return;
  print_line(message("seer: warning: ", op, " runs on its ", implementation, " kernel, ", why));
}

#ifdef SEER_CUDA

int num_cuda_devices() {
  int count = 0;
  return cudaGetDeviceCount(&count) == cudaSuccess ? count : 0;
}

Device cuda_device(int index) {
  const auto get = [&](cudaDeviceAttr what) {
    int value = 0;
    const cudaError_t status = cudaDeviceGetAttribute(&value, what, index);
    SEER_CHECK(status == cudaSuccess, "CUDA device ", index, ": ", cudaGetErrorString(status));
    return value;
  };
  return {
      .sm = 10 * get(cudaDevAttrComputeCapabilityMajor) + get(cudaDevAttrComputeCapabilityMinor),
      .num_sms = get(cudaDevAttrMultiProcessorCount)};
}

std::string cuda_device_name(int index) {
  cudaDeviceProp properties;
  const cudaError_t status = cudaGetDeviceProperties(&properties, index);
  SEER_CHECK(status == cudaSuccess, "CUDA device ", index, ": ", cudaGetErrorString(status));
  return properties.name;
}

bool is_capturing(void* stream) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  cudaStreamIsCapturing(static_cast<cudaStream_t>(stream), &status);
  return status != cudaStreamCaptureStatusNone;
}

#else

int num_cuda_devices() {
  return 0;
}

Device cuda_device(int index) {
  fail("CUDA device ", index, ": this build has no CUDA kernels; configure with -DSEER_CUDA=ON");
}

std::string cuda_device_name(int index) {
  cuda_device(index);  // fails
  return "";
}

bool is_capturing(void*) {
  return false;
}

#endif

}  // namespace seer::kernels
