#include "seer/kernels/attn_gate/attn_gate.h"

#include "seer/kernels/attn_gate/cpu.h"

namespace seer::kernels {
namespace {

template <class Params, void (*kRun)(const Params&)>
void run_cpu(const Params& p, void*) {
  kRun(p);
}

template <class Params, void (*kRun)(const Params&)>
constexpr Impl<Params> kImpls[] = {{"cpu", why_not_cpu<Params>, run_cpu<Params, kRun>}};

template <class Params, void (*kRun)(const Params&)>
void dispatch(const char* op, const Params& p, const Device& device, void* stream) {
  select<Params>(op, kImpls<Params, kRun>, p, device).run(p, stream);
}

template <class Params>
void check_project(const Params& p) {
  SEER_CHECK(p.num_in_heads > 0 && p.num_out_heads % p.num_in_heads == 0,
             "attn_gate_project: ", p.num_out_heads, " output heads do not share ", p.num_in_heads,
             " input heads evenly");
  SEER_CHECK(p.in_dim > 0 && p.out_dim > 0, "attn_gate_project: ", p.in_dim, " features in and ",
             p.out_dim, " out, want at least 1");
  SEER_CHECK(p.rope_half >= 0 && 2 * p.rope_half <= p.out_dim,
             "attn_gate_project: ", 2 * p.rope_half, " features turn, want at most ", p.out_dim);
  SEER_CHECK((p.cos == nullptr) == (p.sin == nullptr),
             "attn_gate_project: cos and sin must be given together");
}

void check_score(const GateScoreParams& p) {
  SEER_CHECK(p.num_gate_heads > 0 && p.num_q_heads % p.num_gate_heads == 0,
             "attn_gate_score: ", p.num_q_heads, " query heads do not share ", p.num_gate_heads,
             " gate heads evenly");
  SEER_CHECK(p.gate_dim > 0 && p.block > 0, "attn_gate_score: gate_dim is ", p.gate_dim,
             " and block ", p.block, ", want at least 1");
}

}  // namespace

std::span<const Impl<GatePoolParams>> attn_gate_pool_impls() {
  return kImpls<GatePoolParams, attn_gate_pool_cpu>;
}

void attn_gate_pool(const GatePoolParams& p, const Device& device, void* stream) {
  SEER_CHECK(p.pools >= 1 && p.pools <= 7, "attn_gate_pool: pools is ", p.pools,
             ", want bits of max (1), min (2), avg (4)");
  SEER_CHECK(p.num_heads > 0 && p.head_dim > 0 && p.block > 0, "attn_gate_pool: ", p.num_heads,
             " heads of ", p.head_dim, " features, block ", p.block, ", want at least 1 each");
  dispatch<GatePoolParams, attn_gate_pool_cpu>("attn_gate_pool", p, device, stream);
}

void attn_gate_project(const GateProjectParams& p, const Device& device, void* stream) {
  check_project(p);
  SEER_CHECK(p.weight != nullptr || (p.num_in_heads == p.num_out_heads && p.in_dim == p.out_dim),
             "attn_gate_project: without a weight ", p.num_in_heads, " heads of ", p.in_dim,
             " features cannot become ", p.num_out_heads, " heads of ", p.out_dim);
  dispatch<GateProjectParams, attn_gate_project_cpu>("attn_gate_project", p, device, stream);
}

void attn_gate_project_grad(const GateProjectGradParams& p, const Device& device, void* stream) {
  check_project(p);
  dispatch<GateProjectGradParams, attn_gate_project_grad_cpu>("attn_gate_project_grad", p, device,
                                                              stream);
}

void attn_gate_score(const GateScoreParams& p, const Device& device, void* stream) {
  check_score(p);
  dispatch<GateScoreParams, attn_gate_score_cpu>("attn_gate_score", p, device, stream);
}

void attn_gate_score_grad(const GateScoreGradParams& p, const Device& device, void* stream) {
  check_score(p.forward);
  dispatch<GateScoreGradParams, attn_gate_score_grad_cpu>("attn_gate_score_grad", p, device,
                                                          stream);
}

}  // namespace seer::kernels
