// seer::attn_gate_vectors: the gate's steps before its scores, of queries and keys together.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include <optional>

#include "seer/torch/attn_gate_steps.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

constexpr const char* kVectorsOp = "seer::attn_gate_vectors";
using Vectors = std::tuple<at::Tensor, at::Tensor>;

// Of queries or of keys.
struct Names {
  PoolNames pool;
  ProjectNames project;
};
constexpr Names kOfQ = {{kVectorsOp, "q", "q_pools"}, {kVectorsOp, "pooled q", "q_weight"}};
constexpr Names kOfK = {{kVectorsOp, "k", "k_pools"}, {kVectorsOp, "pooled k", "k_weight"}};

void check_tokens(const at::Tensor& q, const at::Tensor& k) {
  check_same_device(kVectorsOp, {{"q", q}, {"k", k}});
  TORCH_CHECK(q.dim() == 3 && k.dim() == 3 && q.sym_size(0) == k.sym_size(0), kVectorsOp,
              ": want q [T, Hq, D] and k [T, Hk, D] of the same tokens, got ", q.sym_sizes(),
              " and ", k.sym_sizes());
}

// Without a weight pooling turns on its way, and there is nothing to project.
struct Steps {
  PoolStep pool;
  std::optional<ProjectStep> project;

  Steps(const Names& names, const at::Tensor& x, const at::Tensor& cu, const at::Tensor& cu_blocks,
        int64_t num_blocks, int64_t block, int64_t pools, const at::Tensor& weight,
        const at::Tensor& cos, const at::Tensor& sin) {
    const bool turns = !weight.defined();
    const at::Tensor none;
    pool = prepare_pool(names.pool, x, cu, cu_blocks, num_blocks, block, pools, turns ? cos : none,
                        turns ? sin : none);
    if (!turns) project = prepare_project(names.project, pool.pooled, weight, cos, sin);
  }
  void run() const {
    pool.run();
    if (project) project->run();
  }
  const at::Tensor& result() const { return project ? project->y : pool.pooled; }
};

Vectors vectors(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cu,
                const at::Tensor& cu_blocks, int64_t num_blocks, int64_t block, int64_t q_pools,
                int64_t k_pools, const OptionalTensor& q_weight, const OptionalTensor& k_weight,
                const OptionalTensor& cos_in, const OptionalTensor& sin_in) {
  check_tokens(q, k);
  // Copied here where they have to be, not once for each step.
  const auto contiguous = [](const OptionalTensor& x) {
    return given(x).defined() ? x->contiguous() : at::Tensor();
  };
  const at::Tensor cos = contiguous(cos_in), sin = contiguous(sin_in);
  // All memory is taken and filled before the first kernel, which is launched to wait for what lies
  // ahead of it, and kept until the last: the queries' pooling may then run beside the keys' kernels.
  const Steps of_k(kOfK, k, cu, cu_blocks, num_blocks, block, k_pools, given(k_weight), cos, sin);
  Steps of_q(kOfQ, q, cu, cu_blocks, num_blocks, block, q_pools, given(q_weight), cos, sin);
  of_q.pool.p.beside_previous = true;
  of_k.run();
  of_q.run();
  return {of_q.result(), of_k.result()};
}

Vectors vectors_meta(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cu,
                     const at::Tensor& cu_blocks, SymInt num_blocks, int64_t block, int64_t q_pools,
                     int64_t k_pools, const OptionalTensor& q_weight,
                     const OptionalTensor& k_weight, const OptionalTensor& cos_in,
                     const OptionalTensor& sin_in) {
  check_tokens(q, k);
  const at::Tensor cos = given(cos_in), sin = given(sin_in), none;
  const auto make = [&](const Names& names, const at::Tensor& x, int64_t pools,
                        const at::Tensor& weight) {
    const bool turns = !weight.defined();
    const at::Tensor pooled = pool_output(names.pool, x, cu, cu_blocks, num_blocks, block, pools,
                                          turns ? cos : none, turns ? sin : none);
    return turns ? pooled : project_output(names.project, pooled, weight, cos, sin);
  };
  const at::Tensor of_k = make(kOfK, k, k_pools, given(k_weight));  // in the order of vectors()
  return {make(kOfQ, q, q_pools, given(q_weight)), of_k};
}

Vectors call(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cu,
             const at::Tensor& cu_blocks, SymInt num_blocks, int64_t block, int64_t q_pools,
             int64_t k_pools, const OptionalTensor& q_weight, const OptionalTensor& k_weight,
             const OptionalTensor& cos, const OptionalTensor& sin) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(kVectorsOp, "")
                             .typed<decltype(vectors_meta)>();
  return op.call(q, k, cu, cu_blocks, num_blocks, block, q_pools, k_pools, q_weight, k_weight, cos,
                 sin);
}

Vectors vectors_autograd(const at::Tensor& q, const at::Tensor& k, const at::Tensor& cu,
                         const at::Tensor& cu_blocks, SymInt num_blocks, int64_t block,
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
