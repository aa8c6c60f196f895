#include "seer/kernels/block_sparse_attn/block_sparse_attn.h"

#include <cmath>

#include "seer/kernels/block_sparse_attn/cpu.h"
#include "seer/kernels/block_sparse_attn/sm80/fwd.h"
#include "seer/kernels/block_sparse_attn/sm90/fwd.h"
#include "seer/kernels/cpu_features.h"

namespace seer::kernels {
namespace {

using Params = BlockSparseAttnParams;

std::string why_not_cpu(const Params& p, const Device& device) {
  return device.sm > 0 ? "the tensors are on a GPU" : block_sparse_attn_cpu_why_not(p);
}

void run_cpu(const Params& p, void*) {
  block_sparse_attn_cpu(p, tile_engine(p.dtype, cpu_has_bf16_dot()));
}

std::string why_not_sm90(const Params& p, const Device& device) {
  const std::string reason = why_not_gpu(device, 90, 90);
#ifdef SEER_CUDA
  return reason.empty() ? block_sparse_attn_sm90_why_not(p) : reason;
#else
  return reason;
#endif
}

std::string why_not_sm80(const Params& p, const Device& device) {
  const std::string reason = why_not_gpu(device, 80, 999);
#ifdef SEER_CUDA
  return reason.empty() ? block_sparse_attn_sm80_why_not(p) : reason;
#else
  return reason;
#endif
}

constexpr Impl<Params> kImpls[] = {
#ifdef SEER_CUDA
    {"sm90", why_not_sm90, block_sparse_attn_sm90},
    {"sm80", why_not_sm80, block_sparse_attn_sm80},
#else
    {"sm90", why_not_sm90, nullptr},
    {"sm80", why_not_sm80, nullptr},
#endif
    {"cpu", why_not_cpu, run_cpu}};

}  // namespace

std::span<const Impl<Params>> block_sparse_attn_impls() {
  return kImpls;
}

void block_sparse_attn(const Params& p, const Device& device, void* stream) {
  SEER_CHECK(p.num_kv_heads > 0 && p.num_q_heads > 0 && p.num_q_heads % p.num_kv_heads == 0,
             "block_sparse_attn: ", p.num_q_heads, " query heads do not share ", p.num_kv_heads,
             " key heads evenly");
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
  if (p.total_q == 0) return;
  select<Params>("block_sparse_attn", kImpls, p, device).run(p, stream);
}

}  // namespace seer::kernels
