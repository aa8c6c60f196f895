#include "seer/kernels/pooled_attn/pooled_attn.h"

#include <cmath>

#include "seer/kernels/cpu_features.h"
#include "seer/kernels/pooled_attn/cpu.h"

namespace seer::kernels {
namespace {

using Params = PooledAttnParams;

std::string why_not_on_cpu(const Params& p, const Device& device) {
  const std::string reason = why_not_cpu(device);
  return reason.empty() ? pooled_attn_cpu_why_not(p) : reason;
}

void run_cpu(const Params& p, void*) {
  pooled_attn_cpu(p, tile_engine(p.dtype, cpu_has_bf16_dot()));
}

constexpr Impl<Params> kImpls[] = {{"cpu", why_not_on_cpu, run_cpu}};

}  // namespace

std::span<const Impl<PooledAttnParams>> pooled_attn_impls() {
  return kImpls;
}

void pooled_attn(const Params& p, const Device& device, void* stream) {
  SEER_CHECK(p.num_kv_heads > 0 && p.num_q_heads > 0 && p.num_q_heads % p.num_kv_heads == 0,
             "pooled_attn: ", p.num_q_heads, " query heads do not share ", p.num_kv_heads,
             " key heads evenly");
  SEER_CHECK(p.num_map_heads == p.num_q_heads || p.num_map_heads == p.num_kv_heads,
             "pooled_attn: ", p.num_map_heads, " map heads, want ", p.num_q_heads,
             " (one per query head) or ", p.num_kv_heads, " (the max over each group)");
  SEER_CHECK(
      p.num_seqs >= 0 && p.total_q >= 0 && p.total_k >= 0 && p.num_rows >= 0 && p.num_blocks >= 0,
      "pooled_attn: negative sizes: ", p.num_seqs, " sequences, ", p.total_q, " queries, ",
      p.total_k, " keys, ", p.num_rows, " rows, ", p.num_blocks, " blocks");
  SEER_CHECK(p.head_dim > 0 && p.block_q > 0 && p.block_k > 0, "pooled_attn: head_dim ", p.head_dim,
             ", block_q ", p.block_q, ", block_k ", p.block_k, "; all must be positive");
  SEER_CHECK(p.scale > 0 && std::isfinite(p.scale), "pooled_attn: scale is ", p.scale,
             ", want a positive number");
  if (p.total_q == 0) return;
  select<Params>("pooled_attn", kImpls, p, device).run(p, stream);
}

}  // namespace seer::kernels
