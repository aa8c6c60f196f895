#include "seer/kernels/pooled_attn/pooled_attn.h"

#include <cmath>
#include <iterator>

#include "seer/kernels/cpu_features.h"
#include "seer/kernels/pooled_attn/cpu.h"
#include "seer/kernels/size_limits.h"
#ifdef SEER_CUDA
#include "seer/kernels/pooled_attn/sm80/attn.h"
#include "seer/kernels/pooled_attn/sm90/attn.h"
#endif

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

// What every GPU kernel asks for; kOwn gives what only this one does. Compute capabilities kFirst to
// kLast.
template <int kFirst, int kLast, std::string (*kOwn)(const Params&)>
std::string why_not_on_gpu(const Params& p, const Device& device) {
  const std::string reason = why_not_gpu(device, kFirst, kLast);
  if (!reason.empty()) return reason;
  if (p.dtype == DType::f32) return "dtype is f32, want bf16 or f16";
  if (p.head_dim != 64 && p.head_dim != 96 && p.head_dim != 128 && p.head_dim != 256) {
    return message("head_dim is ", p.head_dim, ", want 64, 96, 128 or 256");
  }
  if (p.block_q != 1 && p.block_q != 64 && p.block_q != 128) {
    return message("block_q is ", p.block_q, ", want 1, 64 or 128");
  }
  if (p.block_k != 64 && p.block_k != 128) {
    return message("block_k is ", p.block_k, ", want 64 or 128");
  }
  return kOwn(p);
}

#ifndef SEER_CUDA
std::string pooled_attn_sm90_why_not(const Params&) {
  return "";  // never asked: why_not_gpu() says that the build has no CUDA kernels
}
std::string pooled_attn_sm80_why_not(const Params&) {
  return "";
}
constexpr void (*pooled_attn_sm90)(const Params&, void*) = nullptr;
constexpr void (*pooled_attn_sm80)(const Params&, void*) = nullptr;
constexpr int64_t (*pooled_attn_sm90_workspace)(const Params&, int) = nullptr;
constexpr int64_t (*pooled_attn_sm80_workspace)(const Params&, int) = nullptr;
#endif

constexpr Impl<Params> kImpls[] = {
    {"sm90", why_not_on_gpu<90, 90, pooled_attn_sm90_why_not>, pooled_attn_sm90},
    {"sm80", why_not_on_gpu<80, 999, pooled_attn_sm80_why_not>, pooled_attn_sm80},
    {"cpu", why_not_on_cpu, run_cpu}};

constexpr int64_t (*kWorkspaces[])(const Params&, int num_sms) = {  // as in kImpls
    pooled_attn_sm90_workspace, pooled_attn_sm80_workspace,
    [](const Params&, int) -> int64_t { return 0; }};
static_assert(std::size(kWorkspaces) == std::size(kImpls));

void check(const Params& p) {
  SEER_CHECK(p.num_kv_heads > 0 && p.num_q_heads > 0 && p.num_q_heads % p.num_kv_heads == 0,
             "pooled_attn: ", p.num_q_heads, " query heads do not share ", p.num_kv_heads,
             " key heads evenly");
  for (const int64_t tokens : {p.total_q, p.total_k, p.num_rows}) {
    check_most("pooled_attn", "tokens or rows", tokens, kMostTokens);
  }
  check_most("pooled_attn", "key blocks", p.num_blocks, kMostBlocks);
  check_most("pooled_attn", "query heads", p.num_q_heads, kMostHeads);
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
}

}  // namespace

std::span<const Impl<PooledAttnParams>> pooled_attn_impls() {
  return kImpls;
}

int64_t pooled_attn_workspace(const Params& p, const Device& device) {
  check(p);
  if (p.total_q == 0) return 0;
  const Impl<Params>& impl = select<Params>("pooled_attn", kImpls, p, device);
  return kWorkspaces[&impl - kImpls](p, device.num_sms);
}

void pooled_attn(const Params& p, const Device& device, void* stream) {
  check(p);
  if (p.total_q == 0) return;
  select<Params>("pooled_attn", kImpls, p, device).run(p, stream);
}

}  // namespace seer::kernels
