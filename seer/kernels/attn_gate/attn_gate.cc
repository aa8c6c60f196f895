#include "seer/kernels/attn_gate/attn_gate.h"

#include <type_traits>

#include "seer/kernels/attn_gate/cpu.h"
#include "seer/kernels/attn_gate/gpu.h"
#include "seer/kernels/size_limits.h"

namespace seer::kernels {
namespace {

template <class Params, void (*kRun)(const Params&)>
void run_cpu(const Params& p, void*) {
  kRun(p);
}

void pool_on_cpu(const GatePoolParams& p) {
  attn_gate_pool_cpu(p);
  if (p.cos) attn_gate_project_cpu(rotate_in_place(p));
}

template <class Params>
int heads_of(const Params& p) {
  if constexpr (std::is_same_v<Params, GatePoolParams>) {
    return p.num_heads;
  } else if constexpr (std::is_same_v<Params, GateScoreParams>) {
    return p.num_q_heads;
  } else if constexpr (std::is_same_v<Params, GateScoreGradParams>) {
    return p.forward.num_q_heads;
  } else {
    return p.num_out_heads;
  }
}

template <class Params, void (*kRun)(const Params&)>
constexpr Impl<Params> cpu_impl = {"cpu", kCpu, run_cpu<Params, kRun>};

constexpr Impl<GatePoolParams> kPool[] = {{"sm80", kSm80, SEER_IF_CUDA(attn_gate_pool_sm80)},
                                          cpu_impl<GatePoolParams, pool_on_cpu>};
constexpr Impl<GateProjectParams> kProject[] = {
    {"sm90", kSm90, SEER_IF_CUDA(attn_gate_project_sm90),
     SEER_IF_CUDA(why_not_attn_gate_project_sm90)},
    {"sm80", kSm80, SEER_IF_CUDA(attn_gate_project_sm80)},
    cpu_impl<GateProjectParams, attn_gate_project_cpu>};
constexpr Impl<GateProjectGradParams> kProjectGrad[] = {
    {"sm80", kSm80, SEER_IF_CUDA(attn_gate_project_grad_sm80)},
    cpu_impl<GateProjectGradParams, attn_gate_project_grad_cpu>};
constexpr Impl<GateScoreParams> kScore[] = {
    {"sm90", kSm90, SEER_IF_CUDA(attn_gate_score_sm90), SEER_IF_CUDA(why_not_attn_gate_score_sm90)},
    {"sm80", kSm80, SEER_IF_CUDA(attn_gate_score_sm80)},
    cpu_impl<GateScoreParams, attn_gate_score_cpu>};
constexpr Impl<GateScoreGradParams> kScoreGrad[] = {
    {"sm80", kSm80, SEER_IF_CUDA(attn_gate_score_grad_sm80)},
    cpu_impl<GateScoreGradParams, attn_gate_score_grad_cpu>};

template <class Params, size_t kCount>
void dispatch(const char* op, const Impl<Params> (&impls)[kCount], const Params& p,
              const Device& device, void* stream) {
  check_most(op, "heads", heads_of(p), kMostHeads);
  select<Params>(op, impls, p, device).run(p, stream);
}

template <class Params>
void check_rope(const char* op, const Params& p, int features) {
  SEER_CHECK(p.rope_half >= 0 && 2 * p.rope_half <= features, op, ": ", 2 * p.rope_half,
             " features rotate, want at most ", features);
  SEER_CHECK((p.cos == nullptr) == (p.sin == nullptr), op, ": cos and sin must be given together");
}

template <class Params>
void check_project(const Params& p) {
  SEER_CHECK(p.num_in_heads > 0 && p.num_out_heads % p.num_in_heads == 0,
             "attn_gate_project: ", p.num_out_heads, " output heads do not share ", p.num_in_heads,
             " input heads evenly");
  SEER_CHECK(p.in_dim > 0 && p.out_dim > 0, "attn_gate_project: ", p.in_dim, " features in and ",
             p.out_dim, " out, want at least 1");
  check_rope("attn_gate_project", p, p.out_dim);
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
  return kPool;
}
std::span<const Impl<GateProjectParams>> attn_gate_project_impls() {
  return kProject;
}
std::span<const Impl<GateScoreParams>> attn_gate_score_impls() {
  return kScore;
}

void attn_gate_pool(const GatePoolParams& p, const Device& device, void* stream) {
  SEER_CHECK(p.pools >= 1 && p.pools <= 7, "attn_gate_pool: pools is ", p.pools,
             ", want bits of max (1), min (2), avg (4)");
  SEER_CHECK(p.num_heads > 0 && p.head_dim > 0 && p.block > 0, "attn_gate_pool: ", p.num_heads,
             " heads of ", p.head_dim, " features, block ", p.block, ", want at least 1 each");
  check_rope("attn_gate_pool", p, p.head_dim);
  SEER_CHECK(p.cos == nullptr || count_pools(p.pools) == 1,
             "attn_gate_pool: ", count_pools(p.pools), " poolings and RoPE, want one");
  dispatch("attn_gate_pool", kPool, p, device, stream);
}

void attn_gate_project(const GateProjectParams& p, const Device& device, void* stream) {
  check_project(p);
  SEER_CHECK(p.weight != nullptr || (p.num_in_heads == p.num_out_heads && p.in_dim == p.out_dim),
             "attn_gate_project: without a weight ", p.num_in_heads, " heads of ", p.in_dim,
             " features cannot become ", p.num_out_heads, " heads of ", p.out_dim);
  dispatch("attn_gate_project", kProject, p, device, stream);
}

void attn_gate_project_grad(const GateProjectGradParams& p, const Device& device, void* stream) {
  check_project(p);
  dispatch("attn_gate_project_grad", kProjectGrad, p, device, stream);
}

void attn_gate_score(const GateScoreParams& p, const Device& device, void* stream) {
  check_score(p);
  dispatch("attn_gate_score", kScore, p, device, stream);
}

void attn_gate_score_grad(const GateScoreGradParams& p, const Device& device, void* stream) {
  check_score(p.forward);
  dispatch("attn_gate_score_grad", kScoreGrad, p, device, stream);
}

}  // namespace seer::kernels
