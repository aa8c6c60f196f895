// seer::gate_loss. The kernel gives the loss and its gradient at once; the backward pass only
// scales it.

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/slice.h>
#include <ATen/ops/sub.h>
#include <c10/core/DeviceGuard.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <string>

#include "seer/kernels/gate_loss/gate_loss.h"
#include "seer/torch/checks.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

constexpr const char* kLossOp = "seer::gate_loss";
constexpr const char* kLossGradOp = "seer::gate_loss_with_grad";

kernels::GateLoss kind_from_name(c10::string_view kind) {
  TORCH_CHECK(kind == "kl" || kind == "mse", kLossOp, ": kind is \"", kind, "\", want kl or mse");
  return kind == "kl" ? kernels::GateLoss::kl : kernels::GateLoss::mse;
}

// Key blocks of each sequence, int32 [B]. On a GPU they are not checked: that would wait for it.
at::Tensor key_blocks(const at::Tensor& cu_blocks, int64_t num_blocks) {
  const int64_t seqs = cu_blocks.size(0) - 1;
  if (!cu_blocks.is_cpu()) return at::sub(cu_blocks.slice(0, 1), cu_blocks.slice(0, 0, seqs));
  at::Tensor out = at::empty({seqs}, at::kInt);
  const int32_t* cu = int_data(cu_blocks);
  for (int64_t b = 0; b < seqs; ++b) {
    TORCH_CHECK(cu[b + 1] - cu[b] <= num_blocks, kLossOp, ": sequence ", b, " has ",
                cu[b + 1] - cu[b], " key blocks, the scores ", num_blocks);
    out.mutable_data_ptr<int32_t>()[b] = cu[b + 1] - cu[b];
  }
  return out;
}

std::tuple<at::Tensor, at::Tensor> loss_with_grad_meta(const at::Tensor& scores,
                                                       const at::Tensor& target,
                                                       const at::Tensor& cu_rows,
                                                       const at::Tensor& cu_blocks, double skip,
                                                       c10::string_view kind) {
  check_same_device(
      kLossOp,
      {{"scores", scores}, {"target", target}, {"cu_rows", cu_rows}, {"cu_blocks", cu_blocks}});
  check_scores(kLossOp, {"scores", scores});
  check_scores(kLossOp, {"target", target});
  TORCH_CHECK(scores.sym_sizes() == target.sym_sizes(), kLossOp, ": scores are ",
              scores.sym_sizes(), " and target ", target.sym_sizes(), ", want the same");
  check_prefix_forms(kLossOp, {{"cu_rows", cu_rows}, {"cu_blocks", cu_blocks}});
  TORCH_CHECK(skip >= 0 && skip < 1, kLossOp, ": skip is ", skip,
              ", want a part of the rows, 0 or more and below 1");
  kind_from_name(kind);
  return {at::empty({}, scores.options().dtype(at::kDouble)),
          at::empty_symint(scores.sym_sizes(), scores.options())};
}

std::tuple<at::Tensor, at::Tensor> loss_with_grad(const at::Tensor& scores_in,
                                                  const at::Tensor& target_in,
                                                  const at::Tensor& cu_rows,
                                                  const at::Tensor& cu_blocks, double skip,
                                                  c10::string_view kind) {
  auto [loss, dscores] = loss_with_grad_meta(scores_in, target_in, cu_rows, cu_blocks, skip, kind);
  const at::Tensor scores = scores_in.contiguous(), target = target_in.contiguous();
  check_prefix(kLossOp, {"cu_rows", cu_rows}, scores.size(1));
  check_prefix(kLossOp, {"cu_blocks", cu_blocks}, -1);
  const c10::DeviceGuard on_device(scores.device());
  const Queue queue = queue_of(scores);
  const at::Tensor num_key_blocks = key_blocks(cu_blocks, scores.size(2));
  kernels::GateLossParams p{};
  p.scores = scores.const_data_ptr<float>();
  p.target = target.const_data_ptr<float>();
  p.cu_rows = int_data(cu_rows);
  p.num_key_blocks = int_data(num_key_blocks);
  p.dscores = dscores.mutable_data_ptr<float>();
  p.loss = loss.mutable_data_ptr<double>();
  p.num_seqs = num_sequences(cu_rows);
  p.num_heads = static_cast<int>(scores.size(0));
  p.num_rows = scores.size(1);
  p.num_blocks = scores.size(2);
  p.skip = skip;
  p.kind = kind_from_name(kind);
  at::Tensor row_losses;
  if (!scores.is_cpu()) {
    row_losses = at::empty({scores.size(0), scores.size(1)}, loss.options());
    p.row_losses = row_losses.mutable_data_ptr<double>();
  }
  kernels::gate_loss(p, queue.device, queue.stream);
  return {loss, dscores};
}

at::Tensor loss(const at::Tensor& scores, const at::Tensor& target, const at::Tensor& cu_rows,
                const at::Tensor& cu_blocks, double skip, c10::string_view kind) {
  return std::get<0>(loss_with_grad(scores, target, cu_rows, cu_blocks, skip, kind));
}

at::Tensor loss_meta(const at::Tensor& scores, const at::Tensor& target, const at::Tensor& cu_rows,
                     const at::Tensor& cu_blocks, double skip, c10::string_view kind) {
  return std::get<0>(loss_with_grad_meta(scores, target, cu_rows, cu_blocks, skip, kind));
}

at::Tensor call(const at::Tensor& scores, const at::Tensor& target, const at::Tensor& cu_rows,
                const at::Tensor& cu_blocks, double skip, c10::string_view kind) {
  static const auto op =
      c10::Dispatcher::singleton().findSchemaOrThrow(kLossOp, "").typed<decltype(loss)>();
  return op.call(scores, target, cu_rows, cu_blocks, skip, kind);
}

std::tuple<at::Tensor, at::Tensor> call_with_grad(const at::Tensor& scores,
                                                  const at::Tensor& target,
                                                  const at::Tensor& cu_rows,
                                                  const at::Tensor& cu_blocks, double skip,
                                                  c10::string_view kind) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow(kLossGradOp, "")
                             .typed<decltype(loss_with_grad)>();
  return op.call(scores, target, cu_rows, cu_blocks, skip, kind);
}

struct Loss : torch::autograd::Function<Loss> {
  static at::Tensor forward(torch::autograd::AutogradContext* context, const at::Tensor& scores,
                            const at::Tensor& target, const at::Tensor& cu_rows,
                            const at::Tensor& cu_blocks, double skip, c10::string_view kind) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    const auto [loss, dscores] = call_with_grad(scores, target, cu_rows, cu_blocks, skip, kind);
    context->save_for_backward({dscores});
    return loss;
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext* context,
                                                 const torch::autograd::variable_list& grads) {
    const at::Tensor dscores = context->get_saved_variables()[0];
    // `grads` has no axes, so that the product stays f32.
    refuse_gradient(kLossOp, "it can be differentiated once only", {{"scores", grads[0]}});
    const at::Tensor none;
    return {at::mul(dscores, grads[0]), none, none, none, none, none};
  }
};

at::Tensor loss_autograd(const at::Tensor& scores, const at::Tensor& target,
                         const at::Tensor& cu_rows, const at::Tensor& cu_blocks, double skip,
                         c10::string_view kind) {
  refuse_gradient(kLossOp, "detach it, as the target is not trained", {{"target", target}});
  refuse_tangent(kLossOp, {{"scores", scores}});
  if (c10::GradMode::is_enabled() && scores.requires_grad()) {
    return Loss::apply(scores, target, cu_rows, cu_blocks, skip, kind);
  }
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call(scores, target, cu_rows, cu_blocks, skip, kind);
}

std::tuple<at::Tensor, at::Tensor> loss_with_grad_autograd(const at::Tensor& scores,
                                                           const at::Tensor& target,
                                                           const at::Tensor& cu_rows,
                                                           const at::Tensor& cu_blocks, double skip,
                                                           c10::string_view kind) {
  refuse_gradient(kLossGradOp, "use gate_loss", {{"scores", scores}, {"target", target}});
  const at::AutoDispatchBelowADInplaceOrView guard;
  return call_with_grad(scores, target, cu_rows, cu_blocks, skip, kind);
}

}  // namespace

at::Tensor gate_loss(const at::Tensor& scores, const at::Tensor& target, const Ragged& ragged,
                     double skip, const std::string& kind) {
  return call(scores, target, ragged.cu_rows, ragged.cu_blocks, skip, kind);
}

}  // namespace seer::torch_ops

TORCH_LIBRARY_IMPL(seer, CPU, m) {
  m.impl("gate_loss", seer::torch_ops::loss);
  m.impl("gate_loss_with_grad", seer::torch_ops::loss_with_grad);
}
TORCH_LIBRARY_IMPL(seer, CUDA, m) {
  m.impl("gate_loss", seer::torch_ops::loss);
  m.impl("gate_loss_with_grad", seer::torch_ops::loss_with_grad);
}
TORCH_LIBRARY_IMPL(seer, Meta, m) {
  m.impl("gate_loss", seer::torch_ops::loss_meta);
  m.impl("gate_loss_with_grad", seer::torch_ops::loss_with_grad_meta);
}
TORCH_LIBRARY_IMPL(seer, Autograd, m) {
  m.impl("gate_loss", seer::torch_ops::loss_autograd);
  m.impl("gate_loss_with_grad", seer::torch_ops::loss_with_grad_autograd);
}
