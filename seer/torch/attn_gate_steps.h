#pragma once
// The gate's steps before its scores, below the dispatcher: for the ops of one of them and the op
// of several. Preparing checks the arguments, copies what does not lie as a kernel wants it, and
// takes memory for the result; running launches the kernel and nothing else.

#include "seer/kernels/attn_gate/params.h"
#include "seer/torch/checks.h"

namespace seer::torch_ops {

// What an op calls its arguments.
struct PoolNames {
  const char *op, *x, *pools;
};
struct ProjectNames {
  const char *op, *x, *weight;
};

// attn_gate_pool.
struct PoolStep {
  kernels::GatePoolParams p{};
  Rope rope;
  at::Tensor x, pooled;

  void run() const;
};
PoolStep prepare_pool(const PoolNames& names, const at::Tensor& x, const at::Tensor& cu,
                      const at::Tensor& cu_blocks, int64_t num_blocks, int64_t block, int64_t pools,
                      const OptionalTensor& cos, const OptionalTensor& sin);
at::Tensor pool_meta(const PoolNames& names, const at::Tensor& x, const c10::SymInt& num_blocks,
                     int64_t block, int64_t pools, bool turns);

// attn_gate_project, without its gradient.
struct ProjectStep {
  kernels::GateProjectParams p{};
  Rope rope;
  at::Tensor x, weight, y;

  void run() const;
};
ProjectStep prepare_project(const ProjectNames& names, const at::Tensor& x,
                            const at::Tensor& weight, const OptionalTensor& cos,
                            const OptionalTensor& sin);
at::Tensor project_meta(const at::Tensor& x, const at::Tensor& weight);

}  // namespace seer::torch_ops
