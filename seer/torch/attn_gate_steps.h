#pragma once
// The gate's steps before its scores, below the dispatcher: for the ops of one of them and the op
// of several. Each step's _output() checks the form of the arguments and makes an empty result; preparing
// calls it, checks contents and copies what does not lie as a kernel wants it; running launches the
// kernel and nothing else.

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
at::Tensor pool_output(const PoolNames& names, const at::Tensor& x, const at::Tensor& cu,
                       const at::Tensor& cu_blocks, const SymInt& num_blocks, int64_t block,
                       int64_t pools, const at::Tensor& cos, const at::Tensor& sin);
PoolStep prepare_pool(const PoolNames& names, const at::Tensor& x, const at::Tensor& cu,
                      const at::Tensor& cu_blocks, int64_t num_blocks, int64_t block, int64_t pools,
                      const at::Tensor& cos, const at::Tensor& sin);

// attn_gate_project, without its gradient.
struct ProjectStep {
  kernels::GateProjectParams p{};
  Rope rope;
  at::Tensor x, weight, y;

  void run() const;
};
at::Tensor project_output(const ProjectNames& names, const at::Tensor& x, const at::Tensor& weight,
                          const at::Tensor& cos, const at::Tensor& sin);
ProjectStep prepare_project(const ProjectNames& names, const at::Tensor& x,
                            const at::Tensor& weight, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace seer::torch_ops
