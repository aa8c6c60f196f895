// seer::block_sparse_attn and its backward.

#include <ATen/ops/zeros.h>

#include <map>
#include <mutex>
#include <utility>

#include "seer/kernels/block_sparse_attn/backward/block_sparse_attn_backward.h"
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

// What forward and backward have among their arguments.
struct Listed {
  PackedQkv in;
  BlockLists lists;
  int64_t block;
  double scale;
  bool causal;

  void check_form(const char* op) const {
    in.check_form(op, block, "block", scale, /*takes_f64=*/true);
    const auto& [begin, count, list] = lists;
    check_same_device(op,
                      {{"q", in.q}, {"list_begin", begin}, {"list_count", count}, {"list", list}});
    TORCH_CHECK(begin.dim() == 2 && begin.scalar_type() == at::kLong && begin.is_contiguous(), op,
                ": list_begin must be int64 [heads, rows], contiguous");
    TORCH_CHECK(count.scalar_type() == at::kInt && count.is_contiguous() &&
                    count.sym_sizes() == begin.sym_sizes(),
                op, ": list_count must be int32 ", begin.sym_sizes(), ", contiguous");
    TORCH_CHECK(list.dim() == 1 && list.scalar_type() == at::kInt && list.is_contiguous(), op,
                ": list must be int32 with one axis, contiguous");
    const SymInt heads = begin.sym_size(0), q_heads = in.q.sym_size(1), k_heads = in.k.sym_size(1);
    TORCH_CHECK(heads == q_heads || heads == k_heads, op, ": list_begin has ", heads,
                " heads, want the ", q_heads, " of q or the ", k_heads, " of k");
    check_count(op, "list_begin's rows", begin.sym_size(1), kernels::kMostTokens);
  }

  // On a GPU the contents of lists are not looked at: that would wait for the device.
  template <class Params>
  void put_into(const char* op, Params& p, const at::Tensor& o, const at::Tensor& lse) const {
    in.check_contents(op, block, -1);
    in.put_into(p, o, lse, scale, causal);
    const bool on_cpu = in.q.is_cpu();
    const int64_t rows = on_cpu ? int_data(in.cu_rows)[p.num_seqs] : lists.begin.size(1);
    TORCH_CHECK(lists.begin.size(1) == rows, op, ": list_begin has ", lists.begin.size(1),
                " rows, want ", rows);
    p.lists = {lists.begin.const_data_ptr<int64_t>(),
               int_data(lists.count),
               int_data(lists.list),
               int_data(in.cu_rows),
               static_cast<int>(lists.begin.size(0)),
               rows,
               static_cast<int>(block),
               static_cast<int>(block)};
    if (on_cpu) check_lists(op, p.lists, p.cu_k, p.num_seqs);
  }

 private:
  // Every list lies inside `list`, and names ascending blocks of its own sequence.
  void check_lists(const char* op, const kernels::BlockList& l, const int32_t* cu_k,
                   int seqs) const {
    const int64_t entries = lists.list.size(0);
    for (int64_t at = 0; at < l.num_heads * l.num_rows; ++at) {
      const int64_t begin = l.begin[at], count = l.count[at];
      TORCH_CHECK(begin >= 0 && count >= 0 && begin <= entries && count <= entries - begin, op,
                  ": list ", at, " takes entries ", begin, " to ", begin + count, " of ", entries);
    }
    for (int b = 0; b < seqs; ++b) {
      const int64_t blocks = (cu_k[b + 1] - cu_k[b] + block - 1) / block;
      for (int64_t h = 0; h < l.num_heads; ++h) {
        for (int64_t r = l.cu_rows[b]; r < l.cu_rows[b + 1]; ++r) {
          const int64_t at = h * l.num_rows + r;
          int64_t before = -1;
          for (int64_t i = l.begin[at]; i < l.begin[at] + l.count[at]; ++i) {
            const int64_t n = l.list[i];
            TORCH_CHECK(n > before && n < blocks, op, ": the list of head ", h, ", row ", r,
                        " names block ", n, " after ", before, ", want ascending blocks below ",
                        blocks);
            before = n;
          }
        }
      }
    }
  }
};

struct BlockSparseAttnBackward {
  static constexpr char kName[] = "seer::block_sparse_attn_backward";
  static constexpr char kSchema[] =
      "(Tensor grad_o, Tensor o, Tensor lse, Tensor q, Tensor k, Tensor v, Tensor cu_q, Tensor "
      "cu_k, "
      "Tensor cu_rows, Tensor list_begin, Tensor list_count, Tensor list, int block, float scale, "
      "bool causal) -> (Tensor grad_q, Tensor grad_k, Tensor grad_v)";
  using Result = std::tuple<at::Tensor, at::Tensor, at::Tensor>;
  using Signature = Result(TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn,
                           TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, int64_t, double, bool);

  const at::Tensor &grad_o, &o, &lse;
  Listed in;

  Result form() const {
    in.check_form(kName);
    const at::Tensor& q = in.in.q;
    check_same_device(kName, {{"q", q}, {"grad_o", grad_o}, {"o", o}, {"lse", lse}});
    for (const Named& x : {Named{"grad_o", grad_o}, Named{"o", o}}) {
      check_heads(kName, x, /*takes_f64=*/true);
      TORCH_CHECK(
          x.tensor.scalar_type() == q.scalar_type() && x.tensor.sym_sizes() == q.sym_sizes(), kName,
          ": ", x.name, " is ", x.tensor.scalar_type(), " ", x.tensor.sym_sizes(), ", want ",
          q.scalar_type(), " ", q.sym_sizes(), " as q");
    }
    TORCH_CHECK(lse.scalar_type() == at::kFloat && lse.is_contiguous() && lse.dim() == 2 &&
                    lse.sym_size(0) == q.sym_size(1) && lse.sym_size(1) == q.sym_size(0),
                kName, ": lse must be float32 [", q.sym_size(1), ", ", q.sym_size(0),
                "], contiguous");
    const auto like = [](const at::Tensor& x) {
      return at::empty_symint(x.sym_sizes(), x.options());
    };
    return {like(q), like(in.in.k), like(in.in.v)};
  }

  Result run() const {
    const auto [grad_q, grad_k, grad_v] = form();
    kernels::BlockSparseAttnBackwardParams p{};
    in.put_into(kName, p, o, lse);
    p.grad_o = strided_in(grad_o);
    p.grad_q = strided_out(grad_q);
    p.grad_k = strided_out(grad_k);
    p.grad_v = strided_out(grad_v);
    const Queue queue(o);
    p.workspace_bytes = kernels::block_sparse_attn_backward_workspace(p, queue.device);
    const at::Tensor workspace = at::empty({p.workspace_bytes}, o.options().dtype(at::kByte));
    p.workspace = workspace.mutable_data_ptr();
    kernels::block_sparse_attn_backward(p, queue.device, queue.stream);
    return {grad_q, grad_k, grad_v};
  }

  void refuse() const {
    refuse_gradient(kName, kOnceOnly,
                    {{"grad_o", grad_o},
                     {"o", o},
                     {"lse", lse},
                     {"q", in.in.q},
                     {"k", in.in.k},
                     {"v", in.in.v}});
  }
};

struct BlockSparseAttn {
  static constexpr char kName[] = "seer::block_sparse_attn";
  static constexpr char kSchema[] =
      "(Tensor q, Tensor k, Tensor v, Tensor cu_q, Tensor cu_k, Tensor cu_rows, Tensor list_begin, "
      "Tensor list_count, Tensor list, int block, float scale, bool causal) "
      "-> (Tensor o, Tensor lse)";
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Signature = Result(TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn,
                           TensorIn, TensorIn, int64_t, double, bool);

  Listed in;

  Result form() const {
    in.check_form(kName);
    return attention_results(in.in.q);
  }

  Result run() const {
    const auto [o, lse] = form();
    kernels::BlockSparseAttnParams p{};
    in.put_into(kName, p, o, lse);
    const Queue queue(o);
    at::Tensor counter, partials;
    if (!o.is_cpu()) {
      counter = zero_counter(o, queue);
      p.counter = counter.mutable_data_ptr<int32_t>();
      p.num_parts = kernels::block_sparse_attn_parts(p, queue.device);
      partials = at::empty({kernels::block_sparse_attn_partials(p)}, lse.options());
      p.partials = partials.mutable_data_ptr<float>();
    }
    kernels::block_sparse_attn(p, queue.device, queue.stream);
    return {o, lse};
  }

  // Of o: lse has no gradient.
  void refuse() const { refuse_tangent(kName, {{"q", in.in.q}, {"k", in.in.k}, {"v", in.in.v}}); }

  Result forward(Context& context, const Below<Result>& below) const {
    const auto [o, lse] = below();
    const auto& [q, k, v, cu_q, cu_k, cu_rows] = in.in;
    context.save_for_backward(
        {o, lse, q, k, v, cu_q, cu_k, cu_rows, in.lists.begin, in.lists.count, in.lists.list});
    context.saved_data["block"] = in.block;
    context.saved_data["scale"] = in.scale;
    context.saved_data["causal"] = in.causal;
    context.mark_non_differentiable({lse});
    return {o, lse};
  }

  static Tensors backward(Context& context, const Tensors& grads) {
    const Tensors s = context.get_saved_variables();
    auto& saved = context.saved_data;
    const auto [q, k, v] = call<BlockSparseAttnBackward>(
        grads[0].contiguous(), s[0], s[1], s[2], s[3], s[4], s[5], s[6], s[7], s[8], s[9], s[10],
        saved["block"].toInt(), saved["scale"].toDouble(), saved["causal"].toBool());
    return {q, k, v};
  }
};

const RegisteredOp<BlockSparseAttn> kBlockSparseAttn;
const RegisteredOp<BlockSparseAttnBackward> kBlockSparseAttnBackward;

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
