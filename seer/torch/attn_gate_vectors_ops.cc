// seer::attn_gate_vectors: the gate's steps before its scores, of queries and keys together.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <torch/library.h>

#include "seer/kernels/attn_gate/attn_gate.h"
#include "seer/torch/attn_gate_steps.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

constexpr const char* kVectorsOp = "seer::attn_gate_vectors";
using Vectors = std::tuple<at::Tensor, at::Tensor>;

Vectors vectors(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cu,
                const at::Tensor& cu_blocks, int64_t num_blocks, int64_t block, int64_t q_pools,
                int64_t k_pools, const OptionalTensor& q_weight, const OptionalTensor& k_weight,
                const OptionalTensor& cos, const OptionalTensor& sin) {
  check_same_device(kVectorsOp, {{"q", q}, {"k", k}});
  TORCH_CHECK(q.dim() == 3 && k.dim() == 3 && q.size(0) == k.size(0), kVectorsOp,
              ": want q [T, Hq, D] and k [T, Hk, D] of the same tokens, got ", q.sizes(), " and ",
              k.sizes());
  const OptionalTensor none;
  // Without a weight pooling turns on its way.
  const auto pool = [&](const at::Tensor& x, int64_t pools, bool has_weight, bool beside) {
    return pool_step(x, cu, cu_blocks, num_blocks, block, pools, has_weight ? none : cos,
                     has_weight ? none : sin, beside);
  };
  const auto project = [&](const at::Tensor& pooled, const OptionalTensor& weight) {
    return given(weight).defined() ? project_step(pooled, weight, cos, sin) : pooled;
  };
  // All of them live until the last is on its way: while the queries' pooling runs beside the keys'
  // kernels, its memory must not be what one of those still reads.
  const at::Tensor pooled_k = pool(k, k_pools, given(k_weight).defined(), false);
  const at::Tensor k_gate = project(pooled_k, k_weight);
  const at::Tensor pooled_q = pool(q, q_pools, given(q_weight).defined(), true);
  return {project(pooled_q, q_weight), k_gate};
}

Vectors vectors_meta(const at::Tensor& q, const at::Tensor& k, const at::Tensor&, const at::Tensor&,
                     c10::SymInt num_blocks, int64_t, int64_t q_pools, int64_t k_pools,
                     const OptionalTensor& q_weight, const OptionalTensor& k_weight,
                     const OptionalTensor&, const OptionalTensor&) {
  const auto make = [&](const at::Tensor& x, int64_t pools, const OptionalTensor& weight_in) {
    const at::Tensor weight = given(weight_in);
    const int count = kernels::count_pools(static_cast<int>(pools));
    return at::empty_symint({num_blocks, weight.defined() ? weight.sym_size(0) : x.sym_size(1),
                             weight.defined() ? weight.sym_size(2) : x.sym_size(2) * count},
                            x.options().dtype(at::kFloat));
  };
  return {make(q, q_pools, q_weight), make(k, k_pools, k_weight)};
}

Vectors call(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cu,
             const at::Tensor& cu_blocks, c10::SymInt num_blocks, int64_t block, int64_t q_pools,
             int64_t k_pools, const OptionalTensor& q_weight, const OptionalTensor& k_weight,
             const OptionalTensor& cos, const OptionalTensor& sin) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(kVectorsOp, "")
                             .typed<decltype(vectors_meta)>();
  return op.call(q, k, cu, cu_blocks, num_blocks, block, q_pools, k_pools, q_weight, k_weight, cos,
                 sin);
}

Vectors vectors_autograd(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cu,
                         const at::Tensor& cu_blocks, c10::SymInt num_blocks, int64_t block,
                         int64_t q_pools, int64_t k_pools, const OptionalTensor& q_weight,
                         const OptionalTensor& k_weight, const OptionalTensor& cos,
                         const OptionalTensor& sin) {
  refuse_gradient(kVectorsOp, "detach it, as gates do not train their model",
                  {{"q", q}, {"k", k}, {"cos", given(cos)}, {"sin", given(sin)}});
  refuse_gradient(kVectorsOp, "train it by attn_gate_pool and attn_gate_project",
                  {{"q_weight", given(q_weight)}, {"k_weight", given(k_weight)}});
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call(q, k, cu, cu_blocks, num_blocks, block, q_pools, k_pools, q_weight, k_weight, cos,
              sin);
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> attn_gate_vectors(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& cu, const at::Tensor& cu_blocks,
    int64_t num_blocks, int64_t block, int64_t q_pools, int64_t k_pools, const at::Tensor& q_weight,
    const at::Tensor& k_weight, const at::Tensor& cos, const at::Tensor& sin) {
  return call(q, k, cu, cu_blocks, num_blocks, block, q_pools, k_pools, optional(q_weight),
              optional(k_weight), optional(cos), optional(sin));
}

}  // namespace seer::torch_ops

TORCH_LIBRARY_IMPL(seer, CPU, m) {
  m.impl("attn_gate_vectors", seer::torch_ops::vectors);
}
TORCH_LIBRARY_IMPL(seer, CUDA, m) {
  m.impl("attn_gate_vectors", seer::torch_ops::vectors);
}
TORCH_LIBRARY_IMPL(seer, Meta, m) {
  m.impl("attn_gate_vectors", seer::torch_ops::vectors_meta);
}
TORCH_LIBRARY_IMPL(seer, Autograd, m) {
  m.impl("attn_gate_vectors", seer::torch_ops::vectors_autograd);
}
