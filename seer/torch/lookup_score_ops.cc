// seer::lookup_score, scores of lookup heads, and its gradient.

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>

#include <algorithm>

#include "seer/kernels/lookup_grad/lookup_grad.h"
#include "seer/kernels/pooled_attn/pooled_attn.h"
#include "seer/kernels/size_limits.h"
#include "seer/torch/op.h"
#include "seer/torch/ops.h"
#include "seer/torch/packed.h"

namespace seer::torch_ops {
namespace {

constexpr int64_t kSmallestOnGpus = 32;  // features of a vector
constexpr int64_t kMostMultiprocessors = 1 << 16;

// Vectors as kernels take them: on a GPU zeros behind the features of small ones.
at::Tensor widened(const at::Tensor& x) {
  const int64_t missing = kSmallestOnGpus - x.size(2);
  return x.is_cuda() && missing > 0 ? at::constant_pad_nd(x, {0, missing}) : x;
}

// What both ops have among their arguments.
struct LookupInputs {
  const at::Tensor &q, &k, &cu_q, &cu_k, &cu_rows;

  PackedQkv packed(const at::Tensor& none) const { return {q, k, none, cu_q, cu_k, cu_rows}; }
  void check_form(const char* op, int64_t block, double scale) const {
    packed({}).check_form(op, block, "block", scale);
    TORCH_SYM_CHECK(q.sym_size(1).sym_eq(k.sym_size(1)), op, ": q has ", q.sym_size(1),
                    " heads, k ", k.sym_size(1), "; each lookup head has keys of its own");
  }
};

struct LookupScoreGrad {
  static constexpr char kName[] = "seer::lookup_score_grad";
  static constexpr char kSchema[] =
      "(Tensor dscores, Tensor q, Tensor k, Tensor lse, Tensor cu_q, Tensor cu_k, Tensor cu_rows, "
      "int block, float scale) -> (Tensor dq, Tensor dk)";
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Signature = Result(TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn,
                           int64_t, double);

  const at::Tensor &dscores, &q, &k, &lse, &cu_q, &cu_k, &cu_rows;
  int64_t block;
  double scale;

  LookupInputs in() const { return {q, k, cu_q, cu_k, cu_rows}; }
  Result form() const {
    in().check_form(kName, block, scale);
    check_same_device(kName, {{"q", q}, {"dscores", dscores}, {"lse", lse}});
    check_scores(kName, {"dscores", dscores});
    TORCH_CHECK(dscores.sym_size(0) == q.sym_size(1), kName, ": dscores has ", dscores.sym_size(0),
                " heads, want ", q.sym_size(1));
    TORCH_CHECK(lse.scalar_type() == at::kFloat && lse.dim() == 2 &&
                    lse.sym_size(0) == q.sym_size(1) && lse.sym_size(1) == q.sym_size(0),
                kName, ": lse is ", lse.sym_sizes(), ", want float32 [heads, tokens] of q");
    const auto options = q.options().dtype(at::kFloat);
    return {at::empty_symint(q.sym_sizes(), options), at::empty_symint(k.sym_sizes(), options)};
  }

  Result run() const {
    auto [dq, dk] = form();
    in().packed({}).check_contents(kName, block, dscores.size(1));
    check_longest(kName, cu_k, block, "dscores", dscores.size(2));
    const at::Tensor wide_q = widened(q), wide_k = widened(k);
    const at::Tensor own_dscores = dscores.contiguous(), own_lse = lse.contiguous();
    const bool is_wide = wide_q.size(2) != q.size(2);
    const at::Tensor out_q = is_wide ? at::empty(wide_q.sizes(), dq.options()) : dq;
    const at::Tensor out_k = is_wide ? at::empty(wide_k.sizes(), dk.options()) : dk;
    const at::Tensor largest = at::empty(dscores.sizes(), q.options().dtype(at::kInt));
    const at::Tensor sums = at::empty(lse.sizes(), lse.options());
    kernels::LookupGradParams p{};
    put_qkv(p, wide_q, wide_k, {});
    p.lse = const_cast<float*>(own_lse.const_data_ptr<float>());  // which this op reads
    p.cu_q = int_data(cu_q);
    p.cu_k = int_data(cu_k);
    p.cu_rows = int_data(cu_rows);
    p.num_seqs = num_sequences(cu_q);
    p.scale = static_cast<float>(scale);
    p.causal = true;
    p.dscores = own_dscores.const_data_ptr<float>();
    p.dq = out_q.mutable_data_ptr<float>();
    p.dk = out_k.mutable_data_ptr<float>();
    p.largest = largest.mutable_data_ptr<int32_t>();
    p.sums = sums.mutable_data_ptr<float>();
    p.num_rows = dscores.size(1);
    p.num_blocks = dscores.size(2);
    p.block = static_cast<int>(block);
    const Queue queue(q);
    kernels::lookup_grad(p, queue.device, queue.stream);
    if (is_wide) {
      dq.copy_(out_q.narrow(2, 0, q.size(2)));
      dk.copy_(out_k.narrow(2, 0, k.size(2)));
    }
    return {dq, dk};
  }

  void refuse() const {
    refuse_gradient(kName, kOnceOnly, {{"dscores", dscores}, {"q", q}, {"k", k}, {"lse", lse}});
  }
};

struct LookupScore {
  static constexpr char kName[] = "seer::lookup_score";
  static constexpr char kSchema[] =
      "(Tensor q, Tensor k, Tensor cu_q, Tensor cu_k, Tensor cu_rows, SymInt num_rows, "
      "SymInt num_blocks, int block, float scale, int beside=0) -> (Tensor scores, Tensor lse)";
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Signature = Result(TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, SymInt, SymInt,
                           int64_t, double, int64_t);

  LookupInputs in;
  SymInt num_rows, num_blocks;
  int64_t block;
  double scale;
  int64_t beside;  // multiprocessors that kernels of other streams have meanwhile

  Result form() const {
    in.check_form(kName, block, scale);
    check_count(kName, "num_rows", num_rows, kernels::kMostTokens);
    check_count(kName, "num_blocks", num_blocks, kernels::kMostBlocks);
    check_count(kName, "beside", beside, kMostMultiprocessors);
    const at::Tensor lse = attention_lse(in.q);
    return {at::empty_symint({in.q.sym_size(1), num_rows, num_blocks}, lse.options()), lse};
  }

  Result run() const {
    auto [scores, lse] = form();
    in.packed({}).check_contents(kName, block, scores.size(1));
    check_longest(kName, in.cu_k, block, "the scores", scores.size(2));
    const at::Tensor q = widened(in.q), k = widened(in.k), none;
    kernels::PooledAttnParams p{};
    PackedQkv{q, k, none, in.cu_q, in.cu_k, in.cu_rows}.put_into(p, none, lse, scale,
                                                                 /*causal=*/true);
    p.map = scores.mutable_data_ptr<float>();
    p.cu_rows = int_data(in.cu_rows);
    p.num_map_heads = static_cast<int>(scores.size(0));
    p.num_rows = scores.size(1);
    p.num_blocks = scores.size(2);
    p.block_q = p.block_k = static_cast<int>(block);
    p.block_softmax = true;
    const Queue queue(q);
    at::Tensor workspace;
    if (q.is_cuda()) {
      // As many thread blocks run as there is workspace for.
      kernels::Device own = queue.device;
      own.num_sms = std::max(own.num_sms - static_cast<int>(beside), 1);
      p.workspace_bytes = kernels::pooled_attn_workspace(p, own);
      workspace = at::empty({p.workspace_bytes}, q.options().dtype(at::kByte));
      p.workspace = workspace.mutable_data_ptr();
    }
    kernels::pooled_attn(p, queue.device, queue.stream);
    scores.log_();  // a weight of 0, where a row sees nothing, becomes -inf
    return {scores, lse};
  }

  void refuse() const { refuse_tangent(kName, {{"q", in.q}, {"k", in.k}}); }

  Result forward(Context& context, const Below<Result>& below) const {
    const Result out = below();
    context.save_for_backward({in.q, in.k, std::get<1>(out), in.cu_q, in.cu_k, in.cu_rows});
    context.saved_data["block"] = block;
    context.saved_data["scale"] = scale;
    context.mark_non_differentiable({std::get<1>(out)});
    return out;
  }
  static Tensors backward(Context& context, const Tensors& grads) {
    const auto s = context.get_saved_variables();
    const auto [dq, dk] = call<LookupScoreGrad>(grads[0], s[0], s[1], s[2], s[3], s[4], s[5],
                                                context.saved_data["block"].toInt(),
                                                context.saved_data["scale"].toDouble());
    return {dq.to(s[0].scalar_type()), dk.to(s[1].scalar_type())};
  }
};

const RegisteredOp<LookupScore> kLookupScore;
const RegisteredOp<LookupScoreGrad> kLookupScoreGrad;

}  // namespace

at::Tensor lookup_score(const at::Tensor& q, const at::Tensor& k, const Ragged& ragged,
                        double scale, int64_t beside) {
  return std::get<0>(call<LookupScore>(q, k, ragged.cu_q, ragged.cu_k, ragged.cu_rows,
                                       ragged.num_rows, ragged.num_blocks,
                                       ragged.one_block(LookupScore::kName), scale, beside));
}

}  // namespace seer::torch_ops
