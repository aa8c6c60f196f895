// seer::pooled_attn.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "seer/kernels/pooled_attn/pooled_attn.h"
#include "seer/kernels/size_limits.h"
#include "seer/torch/checks.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

using Output = std::tuple<at::Tensor, at::Tensor, at::Tensor>;

constexpr const char* kPooledOp = "seer::pooled_attn";

Output pooled_meta(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                   const at::Tensor& cu_q, const at::Tensor& cu_k, const at::Tensor& cu_rows,
                   SymInt num_rows, SymInt num_blocks, int64_t block_q, int64_t block_k,
                   double scale, bool, bool group_max, bool) {
  check_same_device(
      kPooledOp,
      {{"q", q}, {"k", k}, {"v", v}, {"cu_q", cu_q}, {"cu_k", cu_k}, {"cu_rows", cu_rows}});
  check_qkv(kPooledOp, q, k, v);
  check_block_q(kPooledOp, block_q);
  check_block(kPooledOp, block_k, "block_k");
  check_scale(kPooledOp, scale);
  check_count(kPooledOp, "num_rows", num_rows, kernels::kMostTokens);
  check_count(kPooledOp, "num_blocks", num_blocks, kernels::kMostBlocks);
  check_prefix_forms(kPooledOp, {{"cu_q", cu_q}, {"cu_k", cu_k}, {"cu_rows", cu_rows}});
  const auto f32 = q.options().dtype(at::kFloat);
  return {at::empty_symint(q.sym_sizes(), q.options()),
          at::empty_symint({q.sym_size(1), q.sym_size(0)}, f32),
          at::empty_symint({group_max ? k.sym_size(1) : q.sym_size(1), num_rows, num_blocks}, f32)};
}

Output attn(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& cu_q,
            const at::Tensor& cu_k, const at::Tensor& cu_rows, int64_t num_rows, int64_t num_blocks,
            int64_t block_q, int64_t block_k, double scale, bool causal, bool group_max,
            bool normalise) {
  auto [o, lse, map] = pooled_meta(q, k, v, cu_q, cu_k, cu_rows, num_rows, num_blocks, block_q,
                                   block_k, scale, causal, group_max, normalise);
  check_prefix(kPooledOp, {"cu_q", cu_q}, q.size(0));
  check_prefix(kPooledOp, {"cu_k", cu_k}, k.size(0));
  check_block_prefix(kPooledOp, {"cu_rows", cu_rows}, cu_q, block_q, num_rows);
  check_longest(kPooledOp, cu_k, block_k, "the map", num_blocks);
  kernels::PooledAttnParams p{};
  p.q = strided_in(q);
  p.k = strided_in(k);
  p.v = strided_in(v);
  p.o = strided_out(o);
  p.lse = lse.mutable_data_ptr<float>();
  p.map = map.mutable_data_ptr<float>();
  p.cu_q = int_data(cu_q);
  p.cu_k = int_data(cu_k);
  p.cu_rows = int_data(cu_rows);
  p.num_seqs = num_sequences(cu_q);
  p.num_q_heads = static_cast<int>(q.size(1));
  p.num_kv_heads = static_cast<int>(k.size(1));
  p.num_map_heads = static_cast<int>(map.size(0));
  p.head_dim = static_cast<int>(q.size(2));
  p.total_q = q.size(0);
  p.total_k = k.size(0);
  p.num_rows = num_rows;
  p.num_blocks = num_blocks;
  p.block_q = static_cast<int>(block_q);
  p.block_k = static_cast<int>(block_k);
  p.scale = static_cast<float>(scale);
  p.causal = causal;
  p.normalise = normalise;
  p.dtype = dtype_of(q);
  const c10::DeviceGuard on_device(q.device());
  const Queue queue = queue_of(q);
  at::Tensor workspace;
  if (q.is_cuda()) {
    p.workspace_bytes = kernels::pooled_attn_workspace(p, queue.device);
    workspace = at::empty({p.workspace_bytes}, q.options().dtype(at::kByte));
    p.workspace = workspace.mutable_data_ptr();
  }
  kernels::pooled_attn(p, queue.device, queue.stream);
  return {o, lse, map};
}

Output call(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& cu_q,
            const at::Tensor& cu_k, const at::Tensor& cu_rows, SymInt num_rows, SymInt num_blocks,
            int64_t block_q, int64_t block_k, double scale, bool causal, bool group_max,
            bool normalise) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(kPooledOp, "").typed<decltype(pooled_meta)>();
  return op.call(q, k, v, cu_q, cu_k, cu_rows, num_rows, num_blocks, block_q, block_k, scale,
                 causal, group_max, normalise);
}

Output attn_autograd(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const at::Tensor& cu_q, const at::Tensor& cu_k, const at::Tensor& cu_rows,
                     SymInt num_rows, SymInt num_blocks, int64_t block_q, int64_t block_k,
                     double scale, bool causal, bool group_max, bool normalise) {
  refuse_gradient(kPooledOp, "it has no backward: call it under no_grad or detach q, k, v",
                  {{"q", q}, {"k", k}, {"v", v}});
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call(q, k, v, cu_q, cu_k, cu_rows, num_rows, num_blocks, block_q, block_k, scale, causal,
              group_max, normalise);
}

}  // namespace

Output pooled_attn(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                   const Ragged& ragged, double scale, bool causal, bool group_max,
                   bool normalise) {
  return call(q, k, v, ragged.cu_q, ragged.cu_k, ragged.cu_rows, ragged.num_rows, ragged.num_blocks,
              ragged.block_q, ragged.block, scale, causal, group_max, normalise);
}

}  // namespace seer::torch_ops

TORCH_LIBRARY_IMPL(seer, CPU, m) {
  m.impl("pooled_attn", seer::torch_ops::attn);
}
TORCH_LIBRARY_IMPL(seer, CUDA, m) {
  m.impl("pooled_attn", seer::torch_ops::attn);
}
TORCH_LIBRARY_IMPL(seer, Meta, m) {
  m.impl("pooled_attn", seer::torch_ops::pooled_meta);
}
TORCH_LIBRARY_IMPL(seer, Autograd, m) {
  m.impl("pooled_attn", seer::torch_ops::attn_autograd);
}
