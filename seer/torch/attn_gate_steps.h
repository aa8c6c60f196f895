#pragma once
// The gate's steps as their ops compute them, below the dispatcher: for ops made of several.

#include "seer/torch/checks.h"

namespace seer::torch_ops {

// attn_gate_pool. beside_previous: see GatePoolParams.
at::Tensor pool_step(const at::Tensor& x, const at::Tensor& cu, const at::Tensor& cu_blocks,
                     int64_t num_blocks, int64_t block, int64_t pools, const OptionalTensor& cos,
                     const OptionalTensor& sin, bool beside_previous = false);

// attn_gate_project, without its gradient.
at::Tensor project_step(const at::Tensor& x, const OptionalTensor& weight,
                        const OptionalTensor& cos, const OptionalTensor& sin);

}  // namespace seer::torch_ops
