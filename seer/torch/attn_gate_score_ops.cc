// seer::attn_gate_score and its gradients with respect to both gate vectors.

#include <ATen/ops/empty.h>

#include <cmath>

#include "seer/kernels/attn_gate/attn_gate.h"
#include "seer/kernels/size_limits.h"
#include "seer/torch/op.h"
#include "seer/torch/ops.h"
#include "seer/torch/steps.h"

namespace seer::torch_ops {
namespace {

// What both ops have among their arguments, under these names.
struct GateScoreInputs {
  const at::Tensor &q_gate, &k_gate, &cu_q, &cu_k, &cu_rows, &cu_blocks;

  void check_form(const char* op, const SymInt& num_blocks, int64_t block) const {
    check_same_device(op, {{"q_gate", q_gate},
                           {"k_gate", k_gate},
                           {"cu_q", cu_q},
                           {"cu_k", cu_k},
                           {"cu_rows", cu_rows},
                           {"cu_blocks", cu_blocks}});
    check_vectors(op, {"q_gate", q_gate});
    check_vectors(op, {"k_gate", k_gate});
    check_block(op, block);
    check_count(op, "num_blocks", num_blocks, kernels::kMostBlocks);
    TORCH_SYM_CHECK(q_gate.sym_size(2).sym_eq(k_gate.sym_size(2)), op, ": q_gate has ",
                    q_gate.sym_size(2), " features, k_gate ", k_gate.sym_size(2));
    check_shared_heads(op, "q_gate", q_gate.sym_size(1), "k_gate", k_gate.sym_size(1));
    check_prefix_forms(
        op, {{"cu_q", cu_q}, {"cu_k", cu_k}, {"cu_rows", cu_rows}, {"cu_blocks", cu_blocks}});
  }

  // All but `scores`. `q`, `k`: q_gate and k_gate, contiguous, which outlive the parameters.
  kernels::GateScoreParams params(const char* op, const at::Tensor& q, const at::Tensor& k,
                                  int64_t num_blocks, int64_t block) const {
    check_prefix(op, {"cu_q", cu_q}, -1);
    check_prefix(op, {"cu_k", cu_k}, -1);
    check_block_prefix(op, {"cu_rows", cu_rows}, cu_q, block, q.size(0));
    const int64_t longest =
        check_block_prefix(op, {"cu_blocks", cu_blocks}, cu_k, block, k.size(0));
    TORCH_CHECK(num_blocks >= longest, op, ": scores of ", num_blocks,
                " key blocks, but a sequence has ", longest);
    kernels::GateScoreParams p{};
    p.q_gate = q.const_data_ptr<float>();
    p.k_gate = k.const_data_ptr<float>();
    p.cu_q = int_data(cu_q);
    p.cu_k = int_data(cu_k);
    p.cu_rows = int_data(cu_rows);
    p.cu_blocks = int_data(cu_blocks);
    p.num_seqs = num_sequences(cu_q);
    p.num_q_heads = static_cast<int>(q.size(1));
    p.num_gate_heads = static_cast<int>(k.size(1));
    p.gate_dim = static_cast<int>(q.size(2));
    p.num_rows = q.size(0);
    p.num_blocks = num_blocks;
    p.total_blocks = k.size(0);
    p.block = static_cast<int>(block);
    p.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(p.gate_dim)));
    return p;
  }
};

struct GateScoreGrad {
  static constexpr char kName[] = "seer::attn_gate_score_grad";
  static constexpr char kSchema[] =  // dq_gate is empty where it is not wanted
      "(Tensor dscores, Tensor q_gate, Tensor k_gate, Tensor cu_q, Tensor cu_k, Tensor cu_rows, "
      "Tensor cu_blocks, int block, bool want_q) -> (Tensor dq_gate, Tensor dk_gate)";
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Signature = Result(TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn,
                           int64_t, bool);

  const at::Tensor& dscores;
  GateScoreInputs in;
  int64_t block;
  bool want_q;

  Result form() const {
    const auto &q = in.q_gate, &k = in.k_gate;
    check_same_device(kName, {{"q_gate", q}, {"dscores", dscores}});
    check_scores(kName, {"dscores", dscores});
    in.check_form(kName, dscores.sym_size(2), block);
    TORCH_CHECK(dscores.sym_size(0) == q.sym_size(1) && dscores.sym_size(1) == q.sym_size(0), kName,
                ": dscores is ", dscores.sym_sizes(), ", want ", q.sym_size(1), " heads of ",
                q.sym_size(0), " rows");
    return {want_q ? at::empty_symint(q.sym_sizes(), q.options()) : at::empty({0}, q.options()),
            at::empty_symint(k.sym_sizes(), k.options())};
  }

  Result run() const {
    auto [dq, dk] = form();
    const at::Tensor q = in.q_gate.contiguous(), k = in.k_gate.contiguous();
    const at::Tensor own_dscores = dscores.contiguous();
    kernels::GateScoreGradParams p{};
    p.forward = in.params(kName, q, k, dscores.size(2), block);
    p.dscores = own_dscores.const_data_ptr<float>();
    p.dq_gate = want_q ? dq.mutable_data_ptr<float>() : nullptr;
    p.dk_gate = dk.mutable_data_ptr<float>();
    const Queue queue(q);
    kernels::attn_gate_score_grad(p, queue.device, queue.stream);
    return {dq, dk};
  }

  void refuse() const {
    refuse_gradient(kName, kOnceOnly,
                    {{"dscores", dscores}, {"q_gate", in.q_gate}, {"k_gate", in.k_gate}});
  }
};

struct GateScore {
  static constexpr char kName[] = "seer::attn_gate_score";
  static constexpr char kSchema[] =
      "(Tensor q_gate, Tensor k_gate, Tensor cu_q, Tensor cu_k, Tensor cu_rows, Tensor cu_blocks, "
      "SymInt num_blocks, int block) -> Tensor";
  using Signature = at::Tensor(TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, TensorIn, SymInt,
                               int64_t);

  GateScoreInputs in;
  SymInt num_blocks;
  int64_t block;

  at::Tensor form() const {
    in.check_form(kName, num_blocks, block);
    return at::empty_symint({in.q_gate.sym_size(1), in.q_gate.sym_size(0), num_blocks},
                            in.q_gate.options());
  }

  at::Tensor run() const {
    const at::Tensor scores = form(), q = in.q_gate.contiguous(), k = in.k_gate.contiguous();
    auto p = in.params(kName, q, k, scores.size(2), block);
    p.scores = scores.mutable_data_ptr<float>();
    const Queue queue(q);
    kernels::attn_gate_score(p, queue.device, queue.stream);
    return scores;
  }

  void refuse() const { refuse_tangent(kName, {{"q_gate", in.q_gate}, {"k_gate", in.k_gate}}); }

  at::Tensor forward(Context& context, const Below<at::Tensor>& below) const {
    context.save_for_backward({in.q_gate, in.k_gate, in.cu_q, in.cu_k, in.cu_rows, in.cu_blocks});
    context.saved_data["block"] = block;
    return below();
  }
  static Tensors backward(Context& context, const Tensors& grads) {
    const auto s = context.get_saved_variables();
    const bool want_q = context.needs_input_grad(0);
    const auto [dq, dk] = call<GateScoreGrad>(grads[0], s[0], s[1], s[2], s[3], s[4], s[5],
                                              context.saved_data["block"].toInt(), want_q);
    return {want_q ? dq : at::Tensor(), dk};
  }
};

const RegisteredOp<GateScore> kGateScore;
const RegisteredOp<GateScoreGrad> kGateScoreGrad;

}  // namespace

at::Tensor attn_gate_score(const at::Tensor& q_gate, const at::Tensor& k_gate,
                           const Ragged& ragged) {
  enter_step(Step::score);
  return call<GateScore>(q_gate, k_gate, ragged.cu_q, ragged.cu_k, ragged.cu_rows, ragged.cu_blocks,
                         ragged.num_blocks, ragged.one_block(GateScore::kName));
}

}  // namespace seer::torch_ops
