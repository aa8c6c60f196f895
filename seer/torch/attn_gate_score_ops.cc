// seer::attn_gate_score and its gradients with respect to both gate vectors.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <cmath>

#include "seer/kernels/attn_gate/attn_gate.h"
#include "seer/kernels/size_limits.h"
#include "seer/torch/checks.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

constexpr const char* kScoreOp = "seer::attn_gate_score";
constexpr const char* kScoreGradOp = "seer::attn_gate_score_grad";

// The prefix sums of a call.
struct Prefixes {
  const at::Tensor &cu_q, &cu_k, &cu_rows, &cu_blocks;
};

// What both ops ask for.
void check_score_form(const char* op, const at::Tensor& q_gate, const at::Tensor& k_gate,
                      const Prefixes& cu, const SymInt& num_blocks, int64_t block) {
  check_same_device(op, {{"q_gate", q_gate},
                         {"k_gate", k_gate},
                         {"cu_q", cu.cu_q},
                         {"cu_k", cu.cu_k},
                         {"cu_rows", cu.cu_rows},
                         {"cu_blocks", cu.cu_blocks}});
  check_vectors(op, {"q_gate", q_gate});
  check_vectors(op, {"k_gate", k_gate});
  check_block(op, block);
  check_count(op, "num_blocks", num_blocks, kernels::kMostBlocks);
  TORCH_SYM_CHECK(q_gate.sym_size(2).sym_eq(k_gate.sym_size(2)), op, ": q_gate has ",
                  q_gate.sym_size(2), " features, k_gate ", k_gate.sym_size(2));
  check_shared_heads(op, "q_gate", q_gate.sym_size(1), "k_gate", k_gate.sym_size(1));
  check_prefix_forms(
      op,
      {{"cu_q", cu.cu_q}, {"cu_k", cu.cu_k}, {"cu_rows", cu.cu_rows}, {"cu_blocks", cu.cu_blocks}});
}

// All but `scores`, after check_score_form(). q_gate and k_gate are contiguous and outlive the params.
kernels::GateScoreParams score_params(const char* op, const at::Tensor& q_gate,
                                      const at::Tensor& k_gate, const Prefixes& cu,
                                      int64_t num_blocks, int64_t block) {
  check_prefix(op, {"cu_q", cu.cu_q}, -1);
  check_prefix(op, {"cu_k", cu.cu_k}, -1);
  check_block_prefix(op, {"cu_rows", cu.cu_rows}, cu.cu_q, block, q_gate.size(0));
  const int64_t longest =
      check_block_prefix(op, {"cu_blocks", cu.cu_blocks}, cu.cu_k, block, k_gate.size(0));
  TORCH_CHECK(num_blocks >= longest, op, ": scores of ", num_blocks,
              " key blocks, but a sequence has ", longest);
  kernels::GateScoreParams p{};
  p.q_gate = q_gate.const_data_ptr<float>();
  p.k_gate = k_gate.const_data_ptr<float>();
  p.cu_q = int_data(cu.cu_q);
  p.cu_k = int_data(cu.cu_k);
  p.cu_rows = int_data(cu.cu_rows);
  p.cu_blocks = int_data(cu.cu_blocks);
  p.num_seqs = num_sequences(cu.cu_q);
  p.num_q_heads = static_cast<int>(q_gate.size(1));
  p.num_gate_heads = static_cast<int>(k_gate.size(1));
  p.gate_dim = static_cast<int>(q_gate.size(2));
  p.num_rows = q_gate.size(0);
  p.num_blocks = num_blocks;
  p.total_blocks = k_gate.size(0);
  p.block = static_cast<int>(block);
  p.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(p.gate_dim)));
  return p;
}

at::Tensor score_meta(const at::Tensor& q_gate, const at::Tensor& k_gate, const at::Tensor& cu_q,
                      const at::Tensor& cu_k, const at::Tensor& cu_rows,
                      const at::Tensor& cu_blocks, SymInt num_blocks, int64_t block) {
  check_score_form(kScoreOp, q_gate, k_gate, {cu_q, cu_k, cu_rows, cu_blocks}, num_blocks, block);
  return at::empty_symint({q_gate.sym_size(1), q_gate.sym_size(0), num_blocks}, q_gate.options());
}

at::Tensor score(const at::Tensor& q_in, const at::Tensor& k_in, const at::Tensor& cu_q,
                 const at::Tensor& cu_k, const at::Tensor& cu_rows, const at::Tensor& cu_blocks,
                 int64_t num_blocks, int64_t block) {
  at::Tensor scores = score_meta(q_in, k_in, cu_q, cu_k, cu_rows, cu_blocks, num_blocks, block);
  const at::Tensor q_gate = q_in.contiguous(), k_gate = k_in.contiguous();
  auto p =
      score_params(kScoreOp, q_gate, k_gate, {cu_q, cu_k, cu_rows, cu_blocks}, num_blocks, block);
  p.scores = scores.mutable_data_ptr<float>();
  const c10::DeviceGuard on_device(q_gate.device());
  const Queue queue = queue_of(q_gate);
  kernels::attn_gate_score(p, queue.device, queue.stream);
  return scores;
}

std::tuple<at::Tensor, at::Tensor> score_grad_meta(
    const at::Tensor& dscores, const at::Tensor& q_gate, const at::Tensor& k_gate,
    const at::Tensor& cu_q, const at::Tensor& cu_k, const at::Tensor& cu_rows,
    const at::Tensor& cu_blocks, int64_t block, bool want_q) {
  const char* op = kScoreGradOp;
  check_same_device(op, {{"q_gate", q_gate}, {"dscores", dscores}});
  check_scores(op, {"dscores", dscores});
  check_score_form(op, q_gate, k_gate, {cu_q, cu_k, cu_rows, cu_blocks}, dscores.sym_size(2),
                   block);
  TORCH_CHECK(
      dscores.sym_size(0) == q_gate.sym_size(1) && dscores.sym_size(1) == q_gate.sym_size(0), op,
      ": dscores is ", dscores.sym_sizes(), ", want ", q_gate.sym_size(1), " heads of ",
      q_gate.sym_size(0), " rows");
  return {want_q ? at::empty_symint(q_gate.sym_sizes(), q_gate.options())
                 : at::empty({0}, q_gate.options()),
          at::empty_symint(k_gate.sym_sizes(), k_gate.options())};
}

std::tuple<at::Tensor, at::Tensor> score_grad(const at::Tensor& dscores_in, const at::Tensor& q_in,
                                              const at::Tensor& k_in, const at::Tensor& cu_q,
                                              const at::Tensor& cu_k, const at::Tensor& cu_rows,
                                              const at::Tensor& cu_blocks, int64_t block,
                                              bool want_q) {
  auto [dq, dk] =
      score_grad_meta(dscores_in, q_in, k_in, cu_q, cu_k, cu_rows, cu_blocks, block, want_q);
  const at::Tensor q_gate = q_in.contiguous(), k_gate = k_in.contiguous();
  const at::Tensor dscores = dscores_in.contiguous();
  kernels::GateScoreGradParams p{};
  p.forward = score_params(kScoreGradOp, q_gate, k_gate, {cu_q, cu_k, cu_rows, cu_blocks},
                           dscores.size(2), block);
  p.dscores = dscores.const_data_ptr<float>();
  p.dq_gate = want_q ? dq.mutable_data_ptr<float>() : nullptr;
  p.dk_gate = dk.mutable_data_ptr<float>();
  const c10::DeviceGuard on_device(q_gate.device());
  const Queue queue = queue_of(q_gate);
  kernels::attn_gate_score_grad(p, queue.device, queue.stream);
  return {dq, dk};
}

at::Tensor call(const at::Tensor& q_gate, const at::Tensor& k_gate, const at::Tensor& cu_q,
                const at::Tensor& cu_k, const at::Tensor& cu_rows, const at::Tensor& cu_blocks,
                SymInt num_blocks, int64_t block) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(kScoreOp, "").typed<decltype(score_meta)>();
  return op.call(q_gate, k_gate, cu_q, cu_k, cu_rows, cu_blocks, num_blocks, block);
}

std::tuple<at::Tensor, at::Tensor> call_grad(const at::Tensor& dscores, const at::Tensor& q_gate,
                                             const at::Tensor& k_gate, const at::Tensor& cu_q,
                                             const at::Tensor& cu_k, const at::Tensor& cu_rows,
                                             const at::Tensor& cu_blocks, int64_t block,
                                             bool want_q) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(kScoreGradOp, "")
                             .typed<decltype(score_grad)>();
  return op.call(dscores, q_gate, k_gate, cu_q, cu_k, cu_rows, cu_blocks, block, want_q);
}

struct Score : torch::autograd::Function<Score> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& q_gate,
                            const at::Tensor& k_gate, const at::Tensor& cu_q,
                            const at::Tensor& cu_k, const at::Tensor& cu_rows,
                            const at::Tensor& cu_blocks, SymInt num_blocks, int64_t block) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    context->save_for_backward({q_gate, k_gate, cu_q, cu_k, cu_rows, cu_blocks});
    context->saved_data["block"] = block;
    return call(q_gate, k_gate, cu_q, cu_k, cu_rows, cu_blocks, num_blocks, block);
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const auto s = context->get_saved_variables();
    const bool want_q = context->needs_input_grad(0);
    const auto [dq, dk] = call_grad(grads[0], s[0], s[1], s[2], s[3], s[4], s[5],
                                    context->saved_data["block"].toInt(), want_q);
    const at::Tensor none;
    return {want_q ? dq : none, dk, none, none, none, none, none, none};
  }
};

at::Tensor score_autograd(const at::Tensor& q_gate, const at::Tensor& k_gate,
                          const at::Tensor& cu_q, const at::Tensor& cu_k, const at::Tensor& cu_rows,
                          const at::Tensor& cu_blocks, SymInt num_blocks, int64_t block) {
  refuse_tangent(kScoreOp, {{"q_gate", q_gate}, {"k_gate", k_gate}});
  return Score::apply(q_gate, k_gate, cu_q, cu_k, cu_rows, cu_blocks, num_blocks, block);
}

std::tuple<at::Tensor, at::Tensor> score_grad_autograd(
    const at::Tensor& dscores, const at::Tensor& q_gate, const at::Tensor& k_gate,
    const at::Tensor& cu_q, const at::Tensor& cu_k, const at::Tensor& cu_rows,
    const at::Tensor& cu_blocks, int64_t block, bool want_q) {
  refuse_gradient(kScoreGradOp, "it can be differentiated once only",
                  {{"dscores", dscores}, {"q_gate", q_gate}, {"k_gate", k_gate}});
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_grad(dscores, q_gate, k_gate, cu_q, cu_k, cu_rows, cu_blocks, block, want_q);
}

}  // namespace

at::Tensor attn_gate_score(const at::Tensor& q_gate, const at::Tensor& k_gate,
                           const Ragged& ragged) {
  return call(q_gate, k_gate, ragged.cu_q, ragged.cu_k, ragged.cu_rows, ragged.cu_blocks,
              ragged.num_blocks, ragged.one_block(kScoreOp));
}

}  // namespace seer::torch_ops

TORCH_LIBRARY_IMPL(seer, CPU, m) {
  m.impl("attn_gate_score", seer::torch_ops::score);
  m.impl("attn_gate_score_grad", seer::torch_ops::score_grad);
}
TORCH_LIBRARY_IMPL(seer, CUDA, m) {
  m.impl("attn_gate_score", seer::torch_ops::score);
  m.impl("attn_gate_score_grad", seer::torch_ops::score_grad);
}
TORCH_LIBRARY_IMPL(seer, Meta, m) {
  m.impl("attn_gate_score", seer::torch_ops::score_meta);
  m.impl("attn_gate_score_grad", seer::torch_ops::score_grad_meta);
}
TORCH_LIBRARY_IMPL(seer, Autograd, m) {
  m.impl("attn_gate_score", seer::torch_ops::score_autograd);
  m.impl("attn_gate_score_grad", seer::torch_ops::score_grad_autograd);
}
