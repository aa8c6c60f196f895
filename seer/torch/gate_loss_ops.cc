// seer::gate_loss. The kernel gives the loss and its gradient at once; the backward pass only
// scales it.

#include <ATen/ops/empty.h>
#include <ATen/ops/mul.h>
#include <ATen/ops/slice.h>
#include <ATen/ops/sub.h>

#include <string>

#include "seer/kernels/gate_loss/gate_loss.h"
#include "seer/torch/op.h"
#include "seer/torch/ops.h"

namespace seer::torch_ops {
namespace {

constexpr const char* kLossOp = "seer::gate_loss";  // in the messages of both ops

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

struct LossWithGrad {
  static constexpr char kName[] = "seer::gate_loss_with_grad";
  static constexpr char kSchema[] =
      "(Tensor scores, Tensor target, Tensor cu_rows, Tensor cu_blocks, float skip, str kind) "
      "-> (Tensor loss, Tensor dscores)";
  using Result = std::tuple<at::Tensor, at::Tensor>;
  using Signature = Result(TensorIn, TensorIn, TensorIn, TensorIn, double, c10::string_view);

  const at::Tensor &scores, &target, &cu_rows, &cu_blocks;
  double skip;
  c10::string_view kind;

  Result form() const {
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

  Result run() const {
    auto [loss, dscores] = form();
    const at::Tensor own_scores = scores.contiguous(), own_target = target.contiguous();
    check_prefix(kLossOp, {"cu_rows", cu_rows}, scores.size(1));
    check_prefix(kLossOp, {"cu_blocks", cu_blocks}, -1);
    const Queue queue(scores);
    const at::Tensor num_key_blocks = key_blocks(cu_blocks, scores.size(2));
    kernels::GateLossParams p{};
    p.scores = own_scores.const_data_ptr<float>();
    p.target = own_target.const_data_ptr<float>();
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

  void refuse() const {
    refuse_gradient(kName, "use gate_loss", {{"scores", scores}, {"target", target}});
  }
};

struct Loss {
  static constexpr const char* kName = kLossOp;
  static constexpr char kSchema[] =
      "(Tensor scores, Tensor target, Tensor cu_rows, Tensor cu_blocks, float skip, str kind) "
      "-> Tensor";
  using Signature = at::Tensor(TensorIn, TensorIn, TensorIn, TensorIn, double, c10::string_view);

  LossWithGrad both;

  at::Tensor form() const { return std::get<0>(both.form()); }
  at::Tensor run() const { return std::get<0>(both.run()); }
  void refuse() const {
    refuse_gradient(kName, "detach it, as the target is not trained", {{"target", both.target}});
    refuse_tangent(kName, {{"scores", both.scores}});
  }

  at::Tensor forward(Context& context, const Below<at::Tensor>&) const {
    const auto& [scores, target, cu_rows, cu_blocks, skip, kind] = both;
    const auto [loss, dscores] = call<LossWithGrad>(scores, target, cu_rows, cu_blocks, skip, kind);
    context.save_for_backward({dscores});
    return loss;
  }
  static Tensors backward(Context& context, const Tensors& grads) {
    const at::Tensor dscores = context.get_saved_variables()[0];
    // `grads` has no axes, so that the product stays f32.
    refuse_gradient(kName, kOnceOnly, {{"scores", grads[0]}});
    return {at::mul(dscores, grads[0])};
  }
};

const RegisteredOp<Loss> kLoss;
const RegisteredOp<LossWithGrad> kLossWithGrad;

}  // namespace

at::Tensor gate_loss(const at::Tensor& scores, const at::Tensor& target, const Ragged& ragged,
                     double skip, const std::string& kind) {
  return call<Loss>(scores, target, ragged.cu_rows, ragged.cu_blocks, skip, kind);
}

}  // namespace seer::torch_ops
