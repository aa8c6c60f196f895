#include "seer/kernels/block_sparse_attn/backward/block_sparse_attn_backward.h"

#include "seer/kernels/attention/checks.h"
#include "seer/kernels/block_sparse_attn/backward/cpu.h"
#include "seer/kernels/block_sparse_attn/backward/gpu.h"
#include "seer/kernels/block_sparse_attn/backward/reference.h"
#include "seer/kernels/block_sparse_attn/backward/workspace.h"
#include "seer/kernels/block_sparse_attn/lists.h"

namespace seer::kernels {
namespace {

using Params = BlockSparseAttnBackwardParams;

void run_cpu(const Params& p, void*) {
  block_sparse_attn_backward_cpu(p);
}
void run_reference(const Params& p, void*) {
  check_sequences("block_sparse_attn_backward", p, p.lists.cu_rows, p.lists.num_rows,
                  p.lists.block_q);
  block_sparse_attn_backward_reference(p);
}

std::string why_not_f64(const Params& p) {
  return p.dtype == DType::f64 ? "dtype is f64, want f32, f16 or bf16" : "";
}

// kMostHeadDim: of the kernel's instances.
template <int kMostHeadDim>
std::string why_not_gpu(const Params& p) {
  std::string reason = why_not_on_gpus(p);
  if (p.head_dim > kMostHeadDim) {
    return message("head_dim is ", p.head_dim, ", want at most ", kMostHeadDim);
  }
  if (reason.empty()) reason = why_not_block("block_q", p.lists.block_q);
  if (reason.empty()) reason = why_not_block("block_k", p.lists.block_k);
  if (reason.empty()) reason = why_not_aligned(p, 8);
  const auto check = [&](const char* name, const auto& x, int64_t tokens, int heads) {
    if (reason.empty()) reason = why_not_aligned(name, x, tokens, heads, 8);
  };
  check("grad_o", p.grad_o, p.total_q, p.num_q_heads);
  check("grad_q", p.grad_q, p.total_q, p.num_q_heads);
  check("grad_k", p.grad_k, p.total_k, p.num_kv_heads);
  check("grad_v", p.grad_v, p.total_k, p.num_kv_heads);
  return reason;
}

constexpr Impl<Params> kImpls[] = {
    {"sm90", kSm90, SEER_IF_CUDA(block_sparse_attn_backward_sm90), SEER_IF_CUDA(why_not_gpu<128>)},
    {"sm80", kSm80, SEER_IF_CUDA(block_sparse_attn_backward_sm80), SEER_IF_CUDA(why_not_gpu<256>),
     "slower"},
    {"cpu", kCpu, run_cpu, why_not_f64},
    {"reference", kCpu, run_reference, [](const Params& p) { return why_not_reference(p); }}};

}  // namespace

std::span<const Impl<Params>> block_sparse_attn_backward_impls() {
  return kImpls;
}

int64_t block_sparse_attn_backward_workspace(const Params& p, const Device& device) {
  return device.sm ? backward::layout(p, device.num_sms).bytes : 0;
}

void block_sparse_attn_backward(const Params& p, const Device& device, void* stream) {
  constexpr const char* kOp = "block_sparse_attn_backward";
  check_attention(kOp, p, /*takes_f64=*/true);
  check_lists(kOp, p, p.lists);
  const int64_t workspace = block_sparse_attn_backward_workspace(p, device);
  SEER_CHECK(p.workspace_bytes >= workspace, kOp, ": ", p.workspace_bytes,
             " bytes of workspace, want ", workspace);
  if (p.total_q == 0 && p.total_k == 0) return;
  select<Params>(kOp, kImpls, p, device).run(p, stream);
}

}  // namespace seer::kernels
