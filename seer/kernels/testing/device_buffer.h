#pragma once
// For tests: memory on the current GPU, released with its owner, and CUDA calls that must succeed.

#include <cuda_runtime_api.h>

#include <cstddef>
#include <utility>
#include <vector>

#include "seer/base/error.h"

namespace seer::kernels {

inline void check_cuda(cudaError_t status, const char* what) {
  if (status != cudaSuccess) fail(what, ": ", cudaGetErrorString(status));
}

class DeviceBuffer {
 public:
  // Filled with 0xff: NaN in every float type.
  explicit DeviceBuffer(size_t bytes) {
    check_cuda(cudaMalloc(&data_, bytes + 1), "cudaMalloc");  // one more: no buffer is null
    check_cuda(cudaMemset(data_, 0xff, bytes), "cudaMemset");
  }
  // A copy of `host`, and `behind` bytes of 0xff.
  template <class T>
  explicit DeviceBuffer(const std::vector<T>& host, size_t behind = 0)
      : DeviceBuffer(host.size() * sizeof(T) + behind) {
    upload(host);
  }
  DeviceBuffer(DeviceBuffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  DeviceBuffer& operator=(DeviceBuffer&&) = delete;
  ~DeviceBuffer() { cudaFree(data_); }

  template <class T>
  T* as() const {
    return static_cast<T*>(data_);
  }
  template <class T>
  void upload(const std::vector<T>& host) {
    check_cuda(cudaMemcpy(data_, host.data(), host.size() * sizeof(T), cudaMemcpyHostToDevice),
               "copy to the GPU");
  }
  // As many as `host` holds. Waits for the GPU.
  template <class T>
  void download(std::vector<T>& host) const {
    check_cuda(cudaDeviceSynchronize(), "kernel");
    check_cuda(cudaMemcpy(host.data(), data_, host.size() * sizeof(T), cudaMemcpyDeviceToHost),
               "copy from the GPU");
  }

 private:
  void* data_ = nullptr;
};

}  // namespace seer::kernels
