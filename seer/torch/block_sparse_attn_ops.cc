// seer::block_sparse_attn.

#include <ATen/ops/zeros.h>

#include <map>
#include <mutex>
#include <utility>

#include "seer/kernels/block_sparse_attn/block_sparse_attn.h"
#include "seer/kernels/size_limits.h"
#include "seer/torch/op.h"
#include "seer/torch/ops.h"
#include "seer/torch/packed.h"
#include "seer/torch/steps.h"

namespace seer::torch_ops {
namespace {

// int32 [1], on x's device: zero, and to be zero again after each use. Calls on one stream share it;
// while a graph is captured each call gets one of its own, which the graph sets to zero.
at::Tensor zero_counter(const at::Tensor& x, const Queue& queue) {
  const auto make = [&] { return at::zeros({1}, x.options().dtype(at::kInt)); };
  if (kernels::is_capturing(queue.stream)) return make();
  // Never destroyed: at the end of the process the driver may be gone before it.
  static auto* const counters = new std::map<std::pair<int, void*>, at::Tensor>;
  static std::mutex mutex;
  const std::scoped_lock lock(mutex);
  at::Tensor& counter = (*counters)[{x.get_device(), queue.stream}];
  if (!counter.defined()) counter = make();
  return counter;
}

struct BlockSparseAttn {
  static constexpr char kName[] = "seer::block_sparse_attn";
  static constexpr char kSchema[] =
      "(Tensor q, Tensor k, Tensor v, Tensor cu_q, Tensor cu_k, Tensor cu_rows, Tensor list_begin, "
      "Tensor list_count, Tensor list, int block, float scale, bool causal) "
      "-> (Tensor o, Tensor lse)";
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Signature = Result(TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn,
                           TensorIn, TensorIn, int64_t, double, bool);

  PackedQkv in;
  BlockLists lists;
  int64_t block;
  double scale;
  bool causal;

  Result form() const {
    in.check_form(kName, block, "block", scale);
    check_same_device(kName, {{"q", in.q},
                              {"list_begin", lists.begin},
                              {"list_count", lists.count},
                              {"list", lists.list}});
    check_list_forms();
    return attention_results(in.q);
  }

  // On a GPU the contents of lists are not looked at: that would wait for the device.
  Result run() const {
    auto [o, lse] = form();
    in.check_contents(kName, block, -1);
    const bool on_cpu = in.q.is_cpu();
    kernels::BlockSparseAttnParams p{};
    in.put_into(p, o, lse, scale, causal);
    p.lists = block_list(on_cpu ? int_data(in.cu_rows)[p.num_seqs] : lists.begin.size(1));
    if (on_cpu) check_lists(p);
    const Queue queue(in.q);
    at::Tensor counter, partials;
    if (!on_cpu) {
      counter = zero_counter(in.q, queue);
      p.counter = counter.mutable_data_ptr<int32_t>();
      p.num_parts = kernels::block_sparse_attn_parts(p, queue.device);
      partials = at::empty({kernels::block_sparse_attn_partials(p)}, lse.options());
      p.partials = partials.mutable_data_ptr<float>();
    }
    kernels::block_sparse_attn(p, queue.device, queue.stream);
    return {o, lse};
  }

  void refuse() const {
    refuse_gradient(kName,
                    "its backward does not exist yet: call it under no_grad or detach q, k, v",
                    {{"q", in.q}, {"k", in.k}, {"v", in.v}});
  }

 private:
  void check_list_forms() const {
    const auto& [begin, count, list] = lists;
    TORCH_CHECK(begin.dim() == 2 && begin.scalar_type() == at::kLong && begin.is_contiguous(),
                kName, ": list_begin must be int64 [heads, rows], contiguous");
    TORCH_CHECK(count.scalar_type() == at::kInt && count.is_contiguous() &&
                    count.sym_sizes() == begin.sym_sizes(),
                kName, ": list_count must be int32 ", begin.sym_sizes(), ", contiguous");
    TORCH_CHECK(list.dim() == 1 && list.scalar_type() == at::kInt && list.is_contiguous(), kName,
                ": list must be int32 with one axis, contiguous");
    const SymInt heads = begin.sym_size(0), q_heads = in.q.sym_size(1), k_heads = in.k.sym_size(1);
    TORCH_CHECK(heads == q_heads || heads == k_heads, kName, ": list_begin has ", heads,
                " heads, want the ", q_heads, " of q or the ", k_heads, " of k");
    check_count(kName, "list_begin's rows", begin.sym_size(1), kernels::kMostTokens);
  }

  kernels::BlockList block_list(int64_t num_rows) const {
    TORCH_CHECK(lists.begin.size(1) == num_rows, kName, ": list_begin has ", lists.begin.size(1),
                " rows, want ", num_rows);
    return {lists.begin.const_data_ptr<int64_t>(),
            int_data(lists.count),
            int_data(lists.list),
            int_data(in.cu_rows),
            static_cast<int>(lists.begin.size(0)),
            num_rows,
            static_cast<int>(block),
            static_cast<int>(block)};
  }

  // Every list lies inside `list`, and names ascending blocks of its own sequence.
  void check_lists(const kernels::BlockSparseAttnParams& p) const {
    const kernels::BlockList& l = p.lists;
    const int64_t entries = lists.list.size(0);
    for (int64_t at = 0; at < l.num_heads * l.num_rows; ++at) {
      const int64_t begin = l.begin[at], count = l.count[at];
      TORCH_CHECK(begin >= 0 && count >= 0 && begin <= entries && count <= entries - begin, kName,
                  ": list ", at, " takes entries ", begin, " to ", begin + count, " of ", entries);
    }
    for (int b = 0; b < p.num_seqs; ++b) {
      const int64_t blocks = (p.cu_k[b + 1] - p.cu_k[b] + block - 1) / block;
      for (int64_t h = 0; h < l.num_heads; ++h) {
        for (int64_t r = l.cu_rows[b]; r < l.cu_rows[b + 1]; ++r) {
          const int64_t at = h * l.num_rows + r;
          int64_t before = -1;
          for (int64_t i = l.begin[at]; i < l.begin[at] + l.count[at]; ++i) {
            const int64_t n = l.list[i];
            TORCH_CHECK(n > before && n < blocks, kName, ": the list of head ", h, ", row ", r,
                        " names block ", n, " after ", before, ", want ascending blocks below ",
                        blocks);
            before = n;
          }
        }
      }
    }
  }
};

const RegisteredOp<BlockSparseAttn> kBlockSparseAttn;

}  // namespace

std::tuple<at::Tensor, at::Tensor> block_sparse_attn(const at::Tensor& q, const at::Tensor& k,
                                                     const at::Tensor& v, const Ragged& ragged,
                                                     const BlockLists& lists, double scale,
                                                     bool causal) {
  enter_step(Step::attend);
  auto out = call<BlockSparseAttn>(q, k, v, ragged.cu_q, ragged.cu_k, ragged.cu_rows, lists.begin,
                                   lists.count, lists.list,
                                   ragged.one_block(BlockSparseAttn::kName), scale, causal);
  enter_step(Step::none);
  return out;
}

}  // namespace seer::torch_ops
