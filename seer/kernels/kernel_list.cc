#include "seer/kernels/kernel_list.h"

#include <algorithm>
#include <map>
#include <set>

#include "seer/kernels/attn_gate/attn_gate.h"
#include "seer/kernels/block_select/block_select.h"
#include "seer/kernels/block_sparse_attn/backward/block_sparse_attn_backward.h"
#include "seer/kernels/block_sparse_attn/block_sparse_attn.h"
#include "seer/kernels/decode_attn/decode_attn.h"
#include "seer/kernels/gate_loss/gate_loss.h"
#include "seer/kernels/lookup_grad/lookup_grad.h"
#include "seer/kernels/lookup_project/lookup_project.h"
#include "seer/kernels/pooled_attn/pooled_attn.h"

namespace seer::kernels {
namespace {

template <class Params>
void add(std::vector<KernelStatus>& list, const char* op, std::span<const Impl<Params>> impls,
         const Params& p, const Device& device) {
  const Impl<Params>* used = nullptr;
  for (const auto& impl : impls) {
    const std::string why_not = impl.why_not(p, device);
    if (!used && why_not.empty()) used = &impl;
    list.push_back(
        {op, impl.name, why_not, &impl == used ? why_slower(impls, impl, p, device) : ""});
  }
}

}  // namespace

std::vector<KernelStatus> kernel_list(const Device& device, DType dtype, int head_dim, int block,
                                      int lookup_rank) {
  std::vector<KernelStatus> list;
  BlockSparseAttnParams sparse{};
  sparse.num_q_heads = sparse.num_kv_heads = 1;
  sparse.head_dim = head_dim;
  sparse.lists.block_q = sparse.lists.block_k = block;
  sparse.dtype = dtype;
  add(list, "block_sparse_attn", block_sparse_attn_impls(), sparse, device);
  BlockSparseAttnBackwardParams backward{};
  static_cast<PackedAttentionParams&>(backward) = sparse;
  backward.lists = sparse.lists;
  add(list, "block_sparse_attn_backward", block_sparse_attn_backward_impls(), backward, device);
  DecodeAttnParams decode{};
  decode.num_q_heads = decode.num_kv_heads = decode.num_queries = 1;
  decode.head_dim = head_dim;
  decode.dtype = dtype;
  add(list, "decode_attn", decode_attn_impls(), decode, device);
  PooledAttnParams pooled{};
  pooled.head_dim = head_dim;
  pooled.block_q = pooled.block_k = block;
  pooled.dtype = dtype;
  add(list, "pooled_attn", pooled_attn_impls(), pooled, device);
  LookupGradParams lookup_grad{};
  lookup_grad.head_dim = std::max(lookup_rank, 32);  // to which GPUs fill smaller ones up
  lookup_grad.block = pooled.block_q = pooled.block_k = lookup_rank == 0 ? 64 : block;
  lookup_grad.dtype = dtype;
  pooled.head_dim = lookup_grad.head_dim;
  pooled.block_softmax = true;
  add(list, "lookup_score", pooled_attn_impls(), pooled, device);
  LookupProjectParams projections{};
  projections.dtype = dtype;
  projections.head_dim = head_dim;
  projections.rank = lookup_rank == 0 ? 32 : lookup_rank;
  if (takes_lookup_project(projections, device)) {  // else products are the library's
    add(list, "lookup_project", lookup_project_impls(), projections, device);
  }
  add(list, "lookup_score_grad", lookup_grad_impls(), lookup_grad, device);
  add(list, "attn_gate_pool", attn_gate_pool_impls(), {}, device);
  GateProjectParams project{};  // with a weight and RoPE: only their addresses are looked at
  alignas(16) static constexpr float kSomething = 0;
  project.weight = project.cos = project.sin = &kSomething;
  project.in_dim = project.out_dim = head_dim;
  project.rope_half = head_dim / 2;
  add(list, "attn_gate_project", attn_gate_project_impls(), project, device);
  GateScoreParams score{};
  score.gate_dim = head_dim;
  add(list, "attn_gate_score", attn_gate_score_impls(), score, device);
  add(list, "gate_loss", gate_loss_impls(), {}, device);
  add(list, "block_select", block_select_impls(), {}, device);
  return list;
}

std::string why_not_head_dim(const Device& device, int head_dim) {
  std::map<std::string, std::string> reasons;  // of ops that no kernel has taken so far
  std::set<std::string> taken;
  for (const KernelStatus& s : kernel_list(device, DType::bf16, head_dim, /*block=*/64)) {
    if (s.why_not.empty()) taken.insert(s.op);
    std::string& text = reasons[s.op];
    text += message(text.empty() ? "" : "; ", s.implementation, ": ", s.why_not);
  }
  for (const auto& [op, text] : reasons) {
    if (!taken.contains(op)) return message(op, " has no kernel for it (", text, ")");
  }
  return "";
}

}  // namespace seer::kernels
