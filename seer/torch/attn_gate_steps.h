#pragma once
// The gate's steps before its scores, for the op of each and the op of both: form() checks the form of
// the arguments and makes an empty result; prepare() calls it, checks contents and copies what does not
// lie as a kernel wants it; what it gives launches the kernel and nothing else.

#include "seer/kernels/attn_gate/params.h"
#include "seer/torch/op.h"

namespace seer::torch_ops {

struct PreparedPool {
  kernels::GatePoolParams p{};
  Rope rope;
  at::Tensor x, pooled;
  void run() const;
};

struct GatePool {
  static constexpr char kName[] = "seer::attn_gate_pool";
  static constexpr char kSchema[] =
      "(Tensor x, Tensor cu, Tensor cu_blocks, SymInt num_blocks, int block, int pools, "
      "Tensor? cos=None, Tensor? sin=None) -> Tensor";
  using Signature = at::Tensor(TensorIn, TensorIn, TensorIn, SymInt, int64_t, int64_t, OptionalIn,
                               OptionalIn);

  const at::Tensor &x, &cu, &cu_blocks;
  SymInt num_blocks;
  int64_t block, pools;
  const OptionalTensor &cos, &sin;
  // What the op that this is a step of calls itself, x and pools.
  struct Names {
    const char *op, *x, *pools;
  } names{kName, "x", "pools"};

  at::Tensor form() const;
  PreparedPool prepare() const;
  at::Tensor run() const;
  void refuse() const;
};

struct PreparedProjection {
  kernels::GateProjectParams p{};
  Rope rope;
  at::Tensor x, weight, y;
  void run() const;
};

struct GateProject {
  static constexpr char kName[] = "seer::attn_gate_project";
  static constexpr char kSchema[] =
      "(Tensor x, Tensor? weight, Tensor? cos, Tensor? sin) -> Tensor";
  using Signature = at::Tensor(TensorIn, OptionalIn, OptionalIn, OptionalIn);

  const at::Tensor& x;
  const OptionalTensor &weight, &cos, &sin;
  struct Names {
    const char *op, *x, *weight;
  } names{kName, "x", "weight"};

  at::Tensor form() const;
  PreparedProjection prepare() const;
  at::Tensor run() const;
  void refuse() const;
  at::Tensor forward(Context& context, const Below<at::Tensor>& below) const;
  static Tensors backward(Context& context, const Tensors& grads);
};

}  // namespace seer::torch_ops
