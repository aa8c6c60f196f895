#pragma once
// For tests: a call on a stream of its own, and as a CUDA graph.

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <functional>
#include <span>

#include "seer/kernels/impl.h"
#include "seer/kernels/testing/device_buffer.h"

namespace seer::kernels {

// The base of tests that skip without a GPU.
template <class Base = testing::Test>
class OnGpu : public Base {
  void SetUp() override {
    if (num_cuda_devices() == 0) GTEST_SKIP() << "no GPU";
  }
};

// visit(impl) for every implementation that takes the call on this GPU; how many do.
template <class Params, class Visit>
int visit_kernels(std::span<const Impl<Params>> impls, const Params& p, const Visit& visit) {
  const Device device = cuda_device(0);
  int taken = 0;
  for (const Impl<Params>& impl : impls) {
    if (!impl.why_not(p, device).empty()) continue;
    SCOPED_TRACE(impl.name);
    visit(impl);
    ++taken;
  }
  return taken;
}
// One at least must take it.
template <class Params, class Visit>
void for_each_kernel(std::span<const Impl<Params>> impls, const Params& p, const Visit& visit) {
  EXPECT_GT(visit_kernels(impls, p, visit), 0) << "no kernel takes the call";
}

// One that waits for no other.
struct Stream {
  Stream() {
    check_cuda(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  ~Stream() { cudaStreamDestroy(handle); }
  cudaStream_t handle;
};

// Captures call(stream), and replays it twice after `change`: a call that allocates or waits cannot be
// captured. Waits for the end.
template <class Call>
void run_captured(const Call& call, const std::function<void()>& change = [] {}) {
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  check_cuda(cudaDeviceSynchronize(), "copies");
  const Stream stream;
  check_cuda(cudaStreamBeginCapture(stream.handle, cudaStreamCaptureModeThreadLocal), "capture");
  call(stream.handle);
  check_cuda(cudaStreamEndCapture(stream.handle, &graph), "end of capture");
  check_cuda(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
  change();
  check_cuda(cudaDeviceSynchronize(), "copies");
  for (int run = 0; run < 2; ++run) check_cuda(cudaGraphLaunch(replay, stream.handle), "replay");
  check_cuda(cudaStreamSynchronize(stream.handle), "kernel");
  check_cuda(cudaGraphExecDestroy(replay), "cudaGraphExecDestroy");
  check_cuda(cudaGraphDestroy(graph), "cudaGraphDestroy");
}

}  // namespace seer::kernels
