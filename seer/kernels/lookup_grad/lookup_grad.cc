#include "seer/kernels/lookup_grad/lookup_grad.h"

#include "seer/kernels/attention/checks.h"
#include "seer/kernels/lookup_grad/cpu.h"
#include "seer/kernels/lookup_grad/gpu.h"

namespace seer::kernels {
namespace {

using Params = LookupGradParams;

constexpr const char* kOp = "lookup_score_grad";

void run_cpu(const Params& p, void*) {
  lookup_grad_cpu(p);
}

std::string why_not_sm80(const Params& p) {
  if (p.dtype != DType::bf16 && p.dtype != DType::f16) {
    return message("dtype is ", name(p.dtype), ", want bf16 or f16");
  }
  if (p.head_dim != 32 && p.head_dim != 64) {
    return message("head_dim is ", p.head_dim, ", want 32 or 64");
  }
  if (p.block != 64) return message("block is ", p.block, ", want 64");
  std::string reason = why_not_aligned("q", p.q, p.total_q, p.num_q_heads, 8);
  return reason.empty() ? why_not_aligned("k", p.k, p.total_k, p.num_kv_heads, 8) : reason;
}

constexpr Impl<Params> kImpls[] = {
    {"sm80", kSm80, SEER_IF_CUDA(lookup_grad_sm80), SEER_IF_CUDA(why_not_sm80)},
    {"cpu", kCpu, run_cpu}};

}  // namespace

std::span<const Impl<Params>> lookup_grad_impls() {
  return kImpls;
}

void lookup_grad(const Params& p, const Device& device, void* stream) {
  check_attention(kOp, p);
  check_most(kOp, "rows", p.num_rows, kMostTokens);
  check_most(kOp, "key blocks", p.num_blocks, kMostBlocks);
  SEER_CHECK(p.num_q_heads == p.num_kv_heads, kOp, ": ", p.num_q_heads, " query heads and ",
             p.num_kv_heads, " key heads, want as many");
  SEER_CHECK(p.num_rows >= 0 && p.num_blocks >= 0 && p.block > 0, kOp, ": ", p.num_rows, " rows, ",
             p.num_blocks, " blocks of ", p.block, ", want counts not below 0 and a size above");
  select<Params>(kOp, kImpls, p, device).run(p, stream);
}

}  // namespace seer::kernels
