#include "seer/kernels/decode_attn/decode_attn.h"

#include "seer/kernels/attention/checks.h"
#include "seer/kernels/decode_attn/cpu.h"
#include "seer/kernels/decode_attn/gpu.h"
#include "seer/kernels/decode_attn/pieces.h"

namespace seer::kernels {
namespace {

using Params = DecodeAttnParams;

void run_cpu(const Params& p, void*) {
  decode_attn_cpu(p, best_decode_kernels());
}

[[maybe_unused]] std::string why_not_gpu(const Params& p) {
  const std::string reason = why_not_on_gpus(p);
  return reason.empty() ? decode_attn_sm80_why_not(p) : reason;
}

constexpr Impl<Params> kImpls[] = {
    {"sm80", kSm80, SEER_IF_CUDA(decode_attn_sm80), SEER_IF_CUDA(why_not_gpu)},
    {"cpu", kCpu, run_cpu}};

void check(const Params& p) {
  constexpr const char* kOp = "decode_attn";
  check_attention(kOp, p);
  const int64_t queries = int64_t{p.num_seqs} * p.num_queries;
  check_most(kOp, "queries", queries, kMostTokens);
  SEER_CHECK(p.num_queries > 0 && p.total_q == queries, kOp, ": ", p.total_q, " queries of ",
             p.num_seqs, " sequences, want ", p.num_queries, " of each and one at least");
  SEER_CHECK(p.cu_k || p.num_seqs <= 1, kOp, ": ", p.num_seqs,
             " sequences, and nothing says where their keys begin: want cu_k");
  SEER_CHECK(p.window >= 0, kOp, ": window is ", p.window, ", want 0 (all) or more");
}

}  // namespace

std::span<const Impl<Params>> decode_attn_impls() {
  return kImpls;
}

int decode_attn_split(const Params& p, const Device& device) {
  if (device.sm == 0) return 0;
  const int64_t seen =
      p.window > 0 ? std::min(p.total_k, int64_t{p.num_seqs} * p.window) : p.total_k;
  return decode_sm80::choose_split(seen * p.num_kv_heads, device.num_sms);
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
