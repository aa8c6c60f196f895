// seer::block_sparse_attn.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <torch/library.h>

#include "seer/kernels/block_sparse_attn/block_sparse_attn.h"
#include "seer/kernels/size_limits.h"
#include "seer/torch/checks.h"
#include "seer/torch/ops.h"
#include "seer/torch/scratch.h"

namespace seer::torch_ops {
namespace {

using Output = std::tuple<at::Tensor, at::Tensor>;

constexpr const char* kSparseOp = "seer::block_sparse_attn";

// Every list lies inside `list`, and names ascending blocks of its own sequence.
void check_lists(const kernels::BlockList& lists, int64_t entries, const int32_t* cu_k, int seqs) {
  for (int64_t at = 0; at < lists.num_heads * lists.num_rows; ++at) {
    const int64_t begin = lists.begin[at], count = lists.count[at];
    TORCH_CHECK(begin >= 0 && count >= 0 && begin <= entries && count <= entries - begin, kSparseOp,
                ": list ", at, " takes entries ", begin, " to ", begin + count, " of ", entries);
  }
  for (int b = 0; b < seqs; ++b) {
    const int64_t blocks = (cu_k[b + 1] - cu_k[b] + lists.block_k - 1) / lists.block_k;
    for (int64_t h = 0; h < lists.num_heads; ++h) {
      for (int64_t r = lists.cu_rows[b]; r < lists.cu_rows[b + 1]; ++r) {
        const int64_t at = h * lists.num_rows + r;
        int64_t before = -1;
        for (int64_t i = lists.begin[at]; i < lists.begin[at] + lists.count[at]; ++i) {
          const int64_t n = lists.list[i];
          TORCH_CHECK(n > before && n < blocks, kSparseOp, ": the list of head ", h, ", row ", r,
                      " names block ", n, " after ", before, ", want ascending blocks below ",
                      blocks);
          before = n;
        }
      }
    }
  }
}

void check_list_forms(const at::Tensor& begin, const at::Tensor& count, const at::Tensor& list,
                      const SymInt& q_heads, const SymInt& k_heads) {
  TORCH_CHECK(begin.dim() == 2 && begin.scalar_type() == at::kLong && begin.is_contiguous(),
              kSparseOp, ": list_begin must be int64 [heads, rows], contiguous");
  TORCH_CHECK(count.scalar_type() == at::kInt && count.is_contiguous() &&
                  count.sym_sizes() == begin.sym_sizes(),
              kSparseOp, ": list_count must be int32 ", begin.sym_sizes(), ", contiguous");
  TORCH_CHECK(list.dim() == 1 && list.scalar_type() == at::kInt && list.is_contiguous(), kSparseOp,
              ": list must be int32 with one axis, contiguous");
  TORCH_CHECK(begin.sym_size(0) == q_heads || begin.sym_size(0) == k_heads, kSparseOp,
              ": list_begin has ", begin.sym_size(0), " heads, want the ", q_heads, " of q or the ",
              k_heads, " of k");
  check_count(kSparseOp, "list_begin's rows", begin.sym_size(1), kernels::kMostTokens);
}

Output sparse_meta(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                   const at::Tensor& cu_q, const at::Tensor& cu_k, const at::Tensor& cu_rows,
                   const at::Tensor& list_begin, const at::Tensor& list_count,
                   const at::Tensor& list, int64_t block, double scale, bool) {
  check_same_device(kSparseOp, {{"q", q},
                                {"k", k},
                                {"v", v},
                                {"cu_q", cu_q},
                                {"cu_k", cu_k},
                                {"cu_rows", cu_rows},
                                {"list_begin", list_begin},
                                {"list_count", list_count},
                                {"list", list}});
  check_qkv(kSparseOp, q, k, v);
  check_block(kSparseOp, block);
  check_scale(kSparseOp, scale);
  check_prefix_forms(kSparseOp, {{"cu_q", cu_q}, {"cu_k", cu_k}, {"cu_rows", cu_rows}});
  check_list_forms(list_begin, list_count, list, q.sym_size(1), k.sym_size(1));
  return {at::empty_symint(q.sym_sizes(), q.options()),
          at::empty_symint({q.sym_size(1), q.sym_size(0)}, q.options().dtype(at::kFloat))};
}

kernels::BlockList block_list(const at::Tensor& begin, const at::Tensor& count,
                              const at::Tensor& list, const at::Tensor& cu_rows, int64_t num_rows,
                              int64_t block) {
  TORCH_CHECK(begin.size(1) == num_rows, kSparseOp, ": list_begin has ", begin.size(1),
              " rows, want ", num_rows);
  return {begin.const_data_ptr<int64_t>(),
          int_data(count),
          int_data(list),
          int_data(cu_rows),
          static_cast<int>(begin.size(0)),
          num_rows,
          static_cast<int>(block),
          static_cast<int>(block)};
}

// On a GPU the contents of lists are not looked at: that would wait for the device.
Output attn(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& cu_q,
            const at::Tensor& cu_k, const at::Tensor& cu_rows, const at::Tensor& list_begin,
            const at::Tensor& list_count, const at::Tensor& list, int64_t block, double scale,
            bool causal) {
  auto [o, lse] =
      sparse_meta(q, k, v, cu_q, cu_k, cu_rows, list_begin, list_count, list, block, scale, causal);
  const bool on_cpu = q.is_cpu();
  check_prefix(kSparseOp, {"cu_q", cu_q}, q.size(0));
  check_prefix(kSparseOp, {"cu_k", cu_k}, k.size(0));
  check_block_prefix(kSparseOp, {"cu_rows", cu_rows}, cu_q, block, -1);
  const int seqs = num_sequences(cu_q);
  const int64_t num_rows = on_cpu ? int_data(cu_rows)[seqs] : list_begin.size(1);

  kernels::BlockSparseAttnParams p{};
  p.q = strided_in(q);
  p.k = strided_in(k);
  p.v = strided_in(v);
  p.o = strided_out(o);
  p.lse = lse.mutable_data_ptr<float>();
  p.cu_q = int_data(cu_q);
  p.cu_k = int_data(cu_k);
  p.lists = block_list(list_begin, list_count, list, cu_rows, num_rows, block);
  if (on_cpu) check_lists(p.lists, list.size(0), p.cu_k, seqs);
  p.num_seqs = seqs;
  p.num_q_heads = static_cast<int>(q.size(1));
  p.num_kv_heads = static_cast<int>(k.size(1));
  p.head_dim = static_cast<int>(q.size(2));
  p.total_q = q.size(0);
  p.total_k = k.size(0);
  p.scale = static_cast<float>(scale);
  p.causal = causal;
  p.dtype = dtype_of(q);
  const c10::DeviceGuard on_device(q.device());
  const Queue queue = queue_of(q);
  at::Tensor counter, partials;
  if (!on_cpu) {
    counter = zero_counter(q, queue);
    p.counter = counter.mutable_data_ptr<int32_t>();
    p.num_parts = kernels::block_sparse_attn_parts(p, queue.device);
    partials = at::empty({kernels::block_sparse_attn_partials(p)}, lse.options());
    p.partials = partials.mutable_data_ptr<float>();
  }
  kernels::block_sparse_attn(p, queue.device, queue.stream);
  return {o, lse};
}

Output call(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& cu_q,
            const at::Tensor& cu_k, const at::Tensor& cu_rows, const at::Tensor& list_begin,
            const at::Tensor& list_count, const at::Tensor& list, int64_t block, double scale,
            bool causal) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(kSparseOp, "").typed<decltype(attn)>();
  return op.call(q, k, v, cu_q, cu_k, cu_rows, list_begin, list_count, list, block, scale, causal);
}

Output attn_autograd(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const at::Tensor& cu_q, const at::Tensor& cu_k, const at::Tensor& cu_rows,
                     const at::Tensor& list_begin, const at::Tensor& list_count,
                     const at::Tensor& list, int64_t block, double scale, bool causal) {
  refuse_gradient(kSparseOp,
                  "its backward does not exist yet: call it under no_grad or detach q, k, v",
                  {{"q", q}, {"k", k}, {"v", v}});
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call(q, k, v, cu_q, cu_k, cu_rows, list_begin, list_count, list, block, scale, causal);
}

}  // namespace

Output block_sparse_attn(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                         const Ragged& ragged, const BlockLists& lists, double scale, bool causal) {
  return call(q, k, v, ragged.cu_q, ragged.cu_k, ragged.cu_rows, lists.begin, lists.count,
              lists.list, ragged.one_block(kSparseOp), scale, causal);
}

}  // namespace seer::torch_ops

TORCH_LIBRARY_IMPL(seer, CPU, m) {
  m.impl("block_sparse_attn", seer::torch_ops::attn);
}
TORCH_LIBRARY_IMPL(seer, CUDA, m) {
  m.impl("block_sparse_attn", seer::torch_ops::attn);
}
TORCH_LIBRARY_IMPL(seer, Meta, m) {
  m.impl("block_sparse_attn", seer::torch_ops::sparse_meta);
}
TORCH_LIBRARY_IMPL(seer, Autograd, m) {
  m.impl("block_sparse_attn", seer::torch_ops::attn_autograd);
}
