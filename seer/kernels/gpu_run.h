#pragma once
// For tests: a call on a stream of its own, and as a CUDA graph.

#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <span>

#include "seer/kernels/device_buffer.h"
#include "seer/kernels/impl.h"

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

// Captures call(stream), on a stream that waits for no other, and replays it twice: a call that
// allocates or waits cannot be captured. Waits for the end.
template <class Call>
void run_captured(const Call& call) {
  cudaStream_t stream;
  cudaGraph_t graph;
  cudaGraphExec_t replay;
  check_cuda(cudaDeviceSynchronize(), "copies");
  check_cuda(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking), "cudaStreamCreate");
  check_cuda(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), "capture");
  call(stream);
  check_cuda(cudaStreamEndCapture(stream, &graph), "end of capture");
  check_cuda(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
  for (int run = 0; run < 2; ++run) check_cuda(cudaGraphLaunch(replay, stream), "replay");
  check_cuda(cudaStreamSynchronize(stream), "kernel");
  check_cuda(cudaGraphExecDestroy(replay), "cudaGraphExecDestroy");
  check_cuda(cudaGraphDestroy(graph), "cudaGraphDestroy");
  check_cuda(cudaStreamDestroy(stream), "cudaStreamDestroy");
}

}  // namespace seer::kernels
