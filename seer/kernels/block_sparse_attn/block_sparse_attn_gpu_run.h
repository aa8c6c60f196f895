#pragma once
// For tests: calls of block_sparse_attn on every kernel of this GPU.

#include <gtest/gtest.h>

#include <functional>

#include "seer/kernels/block_sparse_attn/block_sparse_attn.h"
#include "seer/kernels/block_sparse_attn/block_sparse_attn_case.h"
#include "seer/kernels/block_sparse_attn/block_sparse_attn_device_call.h"
#include "seer/kernels/gpu_run.h"

namespace seer::kernels {

using BlockSparseAttnKernel = Impl<BlockSparseAttnParams>;

class BlockSparseAttnGpu : public OnGpu<> {};

inline int visit_kernels(const BlockSparseAttnParams& p,
                         const std::function<void(const BlockSparseAttnKernel&)>& visit) {
  SCOPED_TRACE(name(p.dtype));
  return visit_kernels(block_sparse_attn_impls(), p, visit);
}
inline void for_each_kernel(const BlockSparseAttnParams& p,
                            const std::function<void(const BlockSparseAttnKernel&)>& visit) {
  SCOPED_TRACE(name(p.dtype));
  for_each_kernel(block_sparse_attn_impls(), p, visit);
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
