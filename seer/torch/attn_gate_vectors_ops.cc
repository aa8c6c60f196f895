// seer::attn_gate_vectors: the gate's steps before its scores, of queries and keys together.

#include <optional>

#include "seer/torch/attn_gate_steps.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

struct GateVectors {
  static constexpr char kName[] = "seer::attn_gate_vectors";
  static constexpr char kSchema[] =
      "(Tensor q, Tensor k, Tensor cu, Tensor cu_blocks, SymInt num_blocks, int block, "
      "int q_pools, int k_pools, Tensor? q_weight, Tensor? k_weight, Tensor? cos, Tensor? sin) "
      "-> (Tensor q_gate, Tensor k_gate)";
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Signature = Result(TensorIn, TensorIn, TensorIn, TensorIn, SymInt, int64_t, int64_t,
                           int64_t, OptionalIn, OptionalIn, OptionalIn, OptionalIn);

  const at::Tensor &q, &k, &cu, &cu_blocks;
  SymInt num_blocks;
  int64_t block, q_pools, k_pools;
  const OptionalTensor &q_weight, &k_weight, &cos, &sin;

  // Of queries or of keys. Without a weight pooling rotates on its way, and there is nothing to project.
  struct Half {
    const GateVectors& args;
    const at::Tensor& x;
    int64_t pools;
    const OptionalTensor &weight, &cos, &sin;
    GatePool::Names pool_names;
    GateProject::Names project_names;
    const OptionalTensor none;

    bool projects() const { return given(weight).defined(); }
    GatePool pool() const {
      return {x,          args.cu, args.cu_blocks,          args.num_blocks,
              args.block, pools,   projects() ? none : cos, projects() ? none : sin,
              pool_names};
    }
    GateProject project(const at::Tensor& pooled) const {
      return {pooled, weight, cos, sin, project_names};
    }
    at::Tensor form() const {
      const at::Tensor pooled = pool().form();
      return projects() ? project(pooled).form() : pooled;
    }
  };
  Half of_q(OptionalIn c, OptionalIn s) const {
    return {
        *this, q, q_pools, q_weight, c, s, {kName, "q", "q_pools"}, {kName, "pooled q", "q_weight"},
        {}};
  }
  Half of_k(OptionalIn c, OptionalIn s) const {
    return {
        *this, k, k_pools, k_weight, c, s, {kName, "k", "k_pools"}, {kName, "pooled k", "k_weight"},
        {}};
  }

  struct Prepared {
    PreparedPool pool;
    std::optional<PreparedProjection> projection;

    explicit Prepared(const Half& half) : pool(half.pool().prepare()) {
      if (half.projects()) projection = half.project(pool.pooled).prepare();
    }
    void run() const {
      pool.run();
      if (projection) projection->run();
    }
    const at::Tensor& result() const { return projection ? projection->y : pool.pooled; }
  };

  void check_tokens() const {
    check_same_device(kName, {{"q", q}, {"k", k}});
    TORCH_CHECK(q.dim() == 3 && k.dim() == 3 && q.sym_size(0) == k.sym_size(0), kName,
                ": want q [T, Hq, D] and k [T, Hk, D] of the same tokens, got ", q.sym_sizes(),
                " and ", k.sym_sizes());
  }

  Result form() const {
    check_tokens();
    const at::Tensor k_gate = of_k(cos, sin).form();  // in the order of run()
    return {of_q(cos, sin).form(), k_gate};
  }

  Result run() const {
    check_tokens();
    // Copied here where they have to be, not once for each step.
    const auto contiguous = [](OptionalIn x) {
      return given(x).defined() ? OptionalTensor(x->contiguous()) : std::nullopt;
    };
    const OptionalTensor own_cos = contiguous(cos), own_sin = contiguous(sin);
    // All memory is taken and filled before the first kernel, which is launched to wait for what lies
    // ahead of it, and kept until the last: the queries' pooling may then run beside the keys' kernels.
    const Prepared keys(of_k(own_cos, own_sin));
    Prepared queries(of_q(own_cos, own_sin));
    queries.pool.p.beside_previous = true;
    keys.run();
    queries.run();
    return {queries.result(), keys.result()};
  }

  void refuse() const {
    refuse_gradient(kName, kDetachForGate,
                    {{"q", q}, {"k", k}, {"cos", given(cos)}, {"sin", given(sin)}});
    refuse_gradient(kName, "train it by attn_gate_pool and attn_gate_project",
                    {{"q_weight", given(q_weight)}, {"k_weight", given(k_weight)}});
  }
};

const RegisteredOp<GateVectors> kGateVectors;

}  // namespace

std::tuple<at::Tensor, at::Tensor> attn_gate_vectors(
    const at::Tensor& q, const at::Tensor& k, const at::Tensor& cu, const at::Tensor& cu_blocks,
    int64_t num_blocks, int64_t block, int64_t q_pools, int64_t k_pools, const at::Tensor& q_weight,
    const at::Tensor& k_weight, const at::Tensor& cos, const at::Tensor& sin) {
  return call<GateVectors>(q, k, cu, cu_blocks, num_blocks, block, q_pools, k_pools,
                           optional(q_weight), optional(k_weight), optional(cos), optional(sin));
}

}  // namespace seer::torch_ops
