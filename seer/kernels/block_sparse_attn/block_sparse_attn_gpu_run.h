#pragma once
// For tests: calls of block_sparse_attn on every kernel of this GPU.

#include <gtest/gtest.h>

#include <functional>

#include "seer/kernels/block_sparse_attn/block_sparse_attn.h"
#include "seer/kernels/block_sparse_attn/block_sparse_attn_case.h"
#include "seer/kernels/block_sparse_attn/block_sparse_attn_device_call.h"

namespace seer::kernels {

using BlockSparseAttnKernel = Impl<BlockSparseAttnParams>;

inline void skip_without_gpu() {
  if (num_cuda_devices() == 0) GTEST_SKIP() << "no GPU";
}

class BlockSparseAttnGpu : public testing::Test {
  void SetUp() override { skip_without_gpu(); }
};

// Every kernel of this GPU that takes the call; how many do.
inline int visit_kernels(const BlockSparseAttnParams& p,
                         const std::function<void(const BlockSparseAttnKernel&)>& visit) {
  const Device device = cuda_device(0);
  int taken = 0;
  for (const BlockSparseAttnKernel& kernel : block_sparse_attn_impls()) {
    if (!kernel.why_not(p, device).empty()) continue;
    SCOPED_TRACE(message(kernel.name, " ", name(p.dtype)));
    visit(kernel);
    ++taken;
  }
  return taken;
}

// One kernel at least must take the call.
inline void for_each_kernel(const BlockSparseAttnParams& p,
                            const std::function<void(const BlockSparseAttnKernel&)>& visit) {
  EXPECT_GT(visit_kernels(p, visit), 0) << "no kernel takes the call";
}

// Tensors of its own for every run: no kernel finds another's results. Lists are cut into so many
// pieces by kernels that can.
inline void run(const BlockSparseAttnKernel& kernel, BlockSparseAttnCall& call, int num_parts = 1) {
  BlockSparseAttnDeviceCall on_device(call);
  on_device.cut(num_parts);
  kernel.run(on_device.params(), nullptr);
  on_device.download(call);
}

}  // namespace seer::kernels
