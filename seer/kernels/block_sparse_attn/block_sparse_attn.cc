#include "seer/kernels/block_sparse_attn/block_sparse_attn.h"

#include <algorithm>
#include <cmath>

#include "seer/kernels/block_sparse_attn/cpu.h"
#include "seer/kernels/cpu_features.h"
#include "seer/kernels/size_limits.h"
#ifdef SEER_CUDA
#include "seer/kernels/block_sparse_attn/sm80/fwd.h"
#include "seer/kernels/block_sparse_attn/sm90/fwd.h"
#endif

namespace seer::kernels {
namespace {

using Params = BlockSparseAttnParams;

std::string why_not_on_cpu(const Params& p, const Device& device) {
  const std::string reason = why_not_cpu(device);
  return reason.empty() ? block_sparse_attn_cpu_why_not(p) : reason;
}

void run_cpu(const Params& p, void*) {
  block_sparse_attn_cpu(p, tile_engine(p.dtype, cpu_has_bf16_dot()));
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
  if (p.lists.block_q != 64 && p.lists.block_q != 128) {
    return message("block_q is ", p.lists.block_q, ", want 64 or 128");
  }
  if (p.lists.block_k != 64 && p.lists.block_k != 128) {
    return message("block_k is ", p.lists.block_k, ", want 64 or 128");
  }
  return kOwn(p);
}

#ifndef SEER_CUDA
std::string block_sparse_attn_sm90_why_not(const Params&) {
  return "";  // never asked: why_not_gpu() says that the build has no CUDA kernels
}
std::string block_sparse_attn_sm80_why_not(const Params&) {
  return "";
}
constexpr void (*block_sparse_attn_sm90)(const Params&, void*) = nullptr;
constexpr void (*block_sparse_attn_sm80)(const Params&, void*) = nullptr;
#endif

constexpr Impl<Params> kImpls[] = {
    {"sm90", why_not_on_gpu<90, 90, block_sparse_attn_sm90_why_not>, block_sparse_attn_sm90},
    {"sm80", why_not_on_gpu<80, 999, block_sparse_attn_sm80_why_not>, block_sparse_attn_sm80},
    {"cpu", why_not_on_cpu, run_cpu}};

}  // namespace

std::span<const Impl<Params>> block_sparse_attn_impls() {
  return kImpls;
}

int block_sparse_attn_parts(const Params& p, const Device& device) {
  // Only the sm90 forward cuts lists. It computes three rows of 64 queries at a time on each
  // multiprocessor; with many turns each the last one, only partly full, costs little, and pieces
  // that are worked on together lie close to each other in the cache.
  if (device.sm != 90 || p.num_seqs == 0) return 1;
  const int64_t rows = p.lists.num_rows * ((p.lists.block_q + 63) / 64) * p.num_q_heads;
  const int64_t wanted = 12 * 3 * int64_t{device.num_sms};
  if (rows == 0 || rows >= wanted) return 1;
  constexpr int64_t kMaxParts = 16, kKeysOfPart = 8192;
  const int64_t longest = (p.total_k / p.num_seqs + kKeysOfPart - 1) / kKeysOfPart;
  return static_cast<int>(
      std::clamp<int64_t>(std::min((wanted + rows - 1) / rows, longest), 1, kMaxParts));
}

int64_t block_sparse_attn_partials(const Params& p) {
  if (p.num_parts <= 1) return 0;
  const int64_t queries = p.lists.num_rows * p.lists.block_q * p.num_q_heads * p.num_parts;
  return queries * (p.head_dim + 1);
}

void block_sparse_attn(const Params& p, const Device& device, void* stream) {
  SEER_CHECK(p.num_kv_heads > 0 && p.num_q_heads > 0 && p.num_q_heads % p.num_kv_heads == 0,
             "block_sparse_attn: ", p.num_q_heads, " query heads do not share ", p.num_kv_heads,
             " key heads evenly");
  for (const int64_t tokens : {p.total_q, p.total_k, p.lists.num_rows}) {
    check_most("block_sparse_attn", "tokens or rows", tokens, kMostTokens);
  }
  check_most("block_sparse_attn", "query heads", p.num_q_heads, kMostHeads);
  SEER_CHECK(p.lists.num_heads == p.num_q_heads || p.lists.num_heads == p.num_kv_heads,
             "block_sparse_attn: ", p.lists.num_heads, " list heads, want ", p.num_q_heads,
             " (one per query head) or ", p.num_kv_heads, " (one per key head)");
  SEER_CHECK(p.num_seqs >= 0 && p.total_q >= 0 && p.total_k >= 0 && p.lists.num_rows >= 0,
             "block_sparse_attn: negative sizes: ", p.num_seqs, " sequences, ", p.total_q,
             " queries, ", p.total_k, " keys, ", p.lists.num_rows, " rows");
  SEER_CHECK(p.head_dim > 0 && p.lists.block_q > 0 && p.lists.block_k > 0,
             "block_sparse_attn: head_dim ", p.head_dim, ", block_q ", p.lists.block_q,
             ", block_k ", p.lists.block_k, "; all must be positive");
  SEER_CHECK(p.scale > 0 && std::isfinite(p.scale), "block_sparse_attn: scale is ", p.scale,
             ", want a positive number");
  SEER_CHECK(p.num_parts <= 1 || p.partials, "block_sparse_attn: ", p.num_parts,
             " pieces of a list, and no memory for them");
  if (p.total_q == 0) return;
  select<Params>("block_sparse_attn", kImpls, p, device).run(p, stream);
}

}  // namespace seer::kernels
