#pragma once
// CUDA calls that must succeed, and the one way to start a kernel. For .cu files.

#include <cuda_runtime.h>

#include "seer/base/error.h"

#define SEER_CUDA_CHECK(call)                                                                   \
  do {                                                                                          \
    const cudaError_t seer_status = (call);                                                     \
    if (seer_status != cudaSuccess) ::seer::fail(#call, ": ", cudaGetErrorString(seer_status)); \
  } while (false)

namespace seer::kernels {

// Of the current device.
inline int num_multiprocessors() {
  int device = 0, count = 0;
  SEER_CUDA_CHECK(cudaGetDevice(&device));
  SEER_CUDA_CHECK(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device));
  return count;
}

// A multiprocessor splits its memory into cache and shared memory for the kernel that comes first, and
// another one that wants another split waits until it is empty. Kernels that are to run side by side
// ask for the same: `percent` of the largest shared memory.
template <class... KernelArgs>
void split_memory(void (*kernel)(KernelArgs...), int percent) {
  SEER_CUDA_CHECK(
      cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, percent));
}

// Dynamic shared memory of more than 48 KiB has to be asked for.
template <class... KernelArgs>
void allow_shared_memory(void (*kernel)(KernelArgs...), size_t bytes) {
  if (bytes <= 48 * 1024) return;
  SEER_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                       static_cast<int>(bytes)));
}

// Starts `kernel` with `smem` bytes of dynamic shared memory and checks that it started.
template <class... KernelArgs, class... Args>
void launch(void (*kernel)(KernelArgs...), dim3 grid, int threads, size_t smem, void* stream,
            const Args&... args) {
  allow_shared_memory(kernel, smem);
  kernel<<<grid, threads, smem, static_cast<cudaStream_t>(stream)>>>(args...);
  SEER_CUDA_CHECK(cudaGetLastError());
}

// The same, but `kernel` may start before the kernel ahead of it in the stream has ended, from where
// that calls ptx::start_dependents(). Every thread of `kernel` must call
// ptx::wait_for_previous_kernel() before it touches what the other writes or writes where the other
// or one before it may still read: memory that a tensor left is given to the next in the stream's
// order. And some thread must wait before `kernel` ends: then whatever follows in the stream finds
// both complete. Kernels whose code is older than sm_90 do not wait: they are started as ever.
template <class... KernelArgs, class... Args>
void launch_dependent(void (*kernel)(KernelArgs...), dim3 grid, int threads, size_t smem,
                      void* stream, const Args&... args) {
  cudaFuncAttributes code;
  SEER_CUDA_CHECK(cudaFuncGetAttributes(&code, kernel));
  if (code.ptxVersion < 90) return launch(kernel, grid, threads, smem, stream, args...);
  allow_shared_memory(kernel, smem);
  cudaLaunchAttribute overlap{};
  overlap.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  overlap.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = grid;
  config.blockDim = dim3(static_cast<unsigned>(threads));
  config.dynamicSmemBytes = smem;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &overlap;
  config.numAttrs = 1;
  SEER_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, args...));
}

}  // namespace seer::kernels
