#include "seer/kernels/pooled_attn/pooled_attn.h"

#include <iterator>

#include "seer/kernels/attention/checks.h"
#include "seer/kernels/cpu_features.h"
#include "seer/kernels/pooled_attn/cpu.h"
#include "seer/kernels/pooled_attn/gpu.h"

namespace seer::kernels {
namespace {

using Params = PooledAttnParams;

// As its callers know it.
const char* op_of(const Params& p) {
  return p.block_softmax ? "lookup_score" : "pooled_attn";
}

void run_cpu(const Params& p, void*) {
  pooled_attn_cpu(p, tile_engine(p.dtype, cpu_has_bf16_dot()));
}

// With block_softmax: the type and sizes of lookup heads, whose blocks are the steps of all kernels.
std::string why_not_lookup(const Params& p) {
  if (p.dtype != DType::bf16 && p.dtype != DType::f16) {
    return message("dtype is ", name(p.dtype), ", want bf16 or f16");
  }
  if (p.head_dim != 32 && p.head_dim != 64) {
    return message("head_dim is ", p.head_dim, ", want 32 or 64");
  }
  if (p.block_k != 64) return message("block_k is ", p.block_k, ", want 64");
  return p.block_q == 64 ? "" : message("block_q is ", p.block_q, ", want 64");
}

// What every GPU kernel asks for; kOwn gives what only this one does.
template <std::string (*kOwn)(const Params&)>
std::string why_not_gpu(const Params& p) {
  std::string reason = p.block_softmax ? why_not_lookup(p) : why_not_on_gpus(p);
  if (reason.empty() && p.block_q != 1 && p.block_q != 64 && p.block_q != 128) {
    reason = message("block_q is ", p.block_q, ", want 1, 64 or 128");
  }
  if (reason.empty()) reason = why_not_block("block_k", p.block_k);
  return reason.empty() ? kOwn(p) : reason;
}

constexpr Impl<Params> kImpls[] = {
    {"sm90", kSm90, SEER_IF_CUDA(pooled_attn_sm90),
     SEER_IF_CUDA(why_not_gpu<pooled_attn_sm90_why_not>)},
    {"sm80", kSm80, SEER_IF_CUDA(pooled_attn_sm80),
     SEER_IF_CUDA(why_not_gpu<pooled_attn_sm80_why_not>), "at about a third of the speed"},
    {"cpu", kCpu, run_cpu, pooled_attn_cpu_why_not}};

constexpr int64_t (*kWorkspaces[])(const Params&, int num_sms) = {  // as in kImpls
    SEER_IF_CUDA(pooled_attn_sm90_workspace), SEER_IF_CUDA(pooled_attn_sm80_workspace),
    [](const Params&, int) -> int64_t { return 0; }};
static_assert(std::size(kWorkspaces) == std::size(kImpls));

void check(const Params& p) {
  const char* const op = op_of(p);
  check_attention(op, p);
  check_most(op, "rows", p.num_rows, kMostTokens);
  check_most(op, "key blocks", p.num_blocks, kMostBlocks);
  SEER_CHECK(p.num_map_heads == p.num_q_heads || p.num_map_heads == p.num_kv_heads, op, ": ",
             p.num_map_heads, " map heads, want ", p.num_q_heads, " (one per query head) or ",
             p.num_kv_heads, " (the max over each group)");
  SEER_CHECK(p.num_rows >= 0 && p.num_blocks >= 0 && p.block_q > 0 && p.block_k > 0, op, ": ",
             p.num_rows, " rows, ", p.num_blocks, " blocks, block_q ", p.block_q, ", block_k ",
             p.block_k, ", want counts not below 0 and sizes above");
  SEER_CHECK(!p.block_softmax || !p.o.data, op,
             ": block_softmax is for the map alone, but there is an output");
}

}  // namespace

std::span<const Impl<Params>> pooled_attn_impls() {
  return kImpls;
}

int64_t pooled_attn_workspace(const Params& p, const Device& device) {
  check(p);
  if (p.total_q == 0) return 0;
  return kWorkspaces[&select<Params>(op_of(p), kImpls, p, device) - kImpls](p, device.num_sms);
}

void pooled_attn(const Params& p, const Device& device, void* stream) {
  check(p);
  if (p.total_q == 0) return;
  select<Params>(op_of(p), kImpls, p, device).run(p, stream);
}

}  // namespace seer::kernels
