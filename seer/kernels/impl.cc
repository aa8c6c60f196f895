#include "seer/kernels/impl.h"

#ifdef SEER_CUDA
#include <cuda_runtime_api.h>
#endif

namespace seer::kernels {

std::string why_not_cpu(const Device& device) {
  return device.sm == 0 ? "" : "the tensors are on a GPU";
}

std::string why_not_gpu(const Device& device, int first, int last) {
#ifndef SEER_CUDA
  return "built without CUDA kernels";
#endif
  if (device.sm == 0) return "the tensors are on the CPU";
  if (device.sm >= first && device.sm <= last) return "";
  return message("needs compute capability ", first / 10, ".", first % 10,
                 first == last ? "" : " or later", ", this GPU has ", device.sm / 10, ".",
                 device.sm % 10);
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
