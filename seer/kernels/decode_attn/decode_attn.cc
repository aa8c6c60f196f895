#include "seer/kernels/decode_attn/decode_attn.h"

#include <algorithm>
#include <cmath>

#include "seer/kernels/decode_attn/cpu.h"
#include "seer/kernels/decode_attn/pieces.h"
#include "seer/kernels/size_limits.h"
#ifdef SEER_CUDA
#include "seer/kernels/decode_attn/sm80/decode.h"
#endif

namespace seer::kernels {
namespace {

using Params = DecodeAttnParams;

void run_cpu(const Params& p, void*) {
  decode_attn_cpu(p, best_decode_kernels());
}

std::string why_not_on_cpu(const Params&, const Device& device) {
  return why_not_cpu(device);
}

#ifndef SEER_CUDA
std::string decode_attn_sm80_why_not(const Params&) {
  return "";  // never asked: why_not_gpu() says that the build has no CUDA kernels
}
constexpr void (*decode_attn_sm80)(const Params&, void*) = nullptr;
#endif

std::string why_not_on_gpu(const Params& p, const Device& device) {
  const std::string reason = why_not_gpu(device, 80, 999);
  if (!reason.empty()) return reason;
  if (p.dtype == DType::f32) return "dtype is f32, want bf16 or f16";
  if (p.head_dim != 64 && p.head_dim != 96 && p.head_dim != 128 && p.head_dim != 256) {
    return message("head_dim is ", p.head_dim, ", want 64, 96, 128 or 256");
  }
  return decode_attn_sm80_why_not(p);
}

constexpr Impl<Params> kImpls[] = {{"sm80", why_not_on_gpu, decode_attn_sm80},
                                   {"cpu", why_not_on_cpu, run_cpu}};

void check(const Params& p) {
  SEER_CHECK(p.num_kv_heads > 0 && p.num_q_heads > 0 && p.num_q_heads % p.num_kv_heads == 0,
             "decode_attn: ", p.num_q_heads, " query heads do not share ", p.num_kv_heads,
             " key heads evenly");
  SEER_CHECK(p.num_seqs >= 0 && p.num_queries > 0 && p.total_k >= 0 && p.head_dim > 0,
             "decode_attn: ", p.num_seqs, " sequences of ", p.num_queries, " queries, ", p.total_k,
             " keys, head_dim ", p.head_dim, ", want none below 0, queries and head_dim above");
  check_most("decode_attn", "query heads", p.num_q_heads, kMostHeads);
  check_most("decode_attn", "queries", int64_t{p.num_seqs} * p.num_queries, kMostTokens);
  check_most("decode_attn", "keys", p.total_k, kMostTokens);
  SEER_CHECK(p.cu_k || p.num_seqs <= 1, "decode_attn: ", p.num_seqs,
             " sequences, and nothing says where their keys begin: want cu_k");
  SEER_CHECK(p.window >= 0, "decode_attn: window is ", p.window, ", want 0 (all) or more");
  SEER_CHECK(p.scale > 0 && std::isfinite(p.scale), "decode_attn: scale is ", p.scale,
             ", want a positive number");
}

}  // namespace

std::span<const Impl<Params>> decode_attn_impls() {
  return kImpls;
}

int decode_attn_split(const Params& p, const Device& device) {
  if (device.sm == 0) return 0;
  // Three turns of two thread blocks for each multiprocessor: pieces that end late are short, and
  // what a piece costs beside its keys is small.
  constexpr int64_t kTurns = 3, kBlocksPerSm = 2, kUnit = 64, kLeast = 128;
  const int64_t wanted = kTurns * kBlocksPerSm * device.num_sms;
  const int64_t seen =
      p.window > 0 ? std::min(p.total_k, int64_t{p.num_seqs} * p.window) : p.total_k;
  const int64_t keys = (seen * p.num_kv_heads + wanted - 1) / std::max<int64_t>(wanted, 1);
  return static_cast<int>(std::max(kLeast, (keys + kUnit - 1) / kUnit * kUnit));
}

int64_t decode_attn_partials(const Params& p) {
  if (p.split == 0 || p.num_seqs == 0) return 0;
  return num_slots(p) * p.num_queries * p.num_q_heads * (p.head_dim + 1);
}

void decode_attn(const Params& p, const Device& device, void* stream) {
  check(p);
  if (p.num_seqs == 0) return;
  select<Params>("decode_attn", kImpls, p, device).run(p, stream);
}

}  // namespace seer::kernels
