#include "seer/train/tasks/gate_training.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/isposinf.h>
#include <ATen/ops/nan_to_num.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <limits>
#include <utility>

#include "seer/io/gate_file.h"

namespace seer::train {

using models::AttentionInput;

std::vector<Parameter> gate_parameters(const models::Gates& gates) {
  std::vector<Parameter> named;
  int layer = 0;
  for (const models::GateWeights& gate : gates.layers()) {
    for (const models::GateParameter& parameter : models::parameters_of(gate)) {
      named.push_back({io::gate_weight_name(layer, parameter.name), gate.*parameter.weight});
    }
    ++layer;
  }
  return named;
}

std::vector<at::Tensor> gate_leaves(const models::Gates& gates, int layer) {
  const models::GateWeights& gate = gates.layers()[static_cast<size_t>(layer)];
  std::vector<at::Tensor> leaves;
  for (const models::GateParameter& parameter : models::parameters_of(gate)) {
    leaves.push_back(gate.*parameter.weight);
  }
  return leaves;
}

double gate_skip(double skip, const std::string& kind) {
  return skip >= 0 ? skip : kind == "kl" ? 0.25 : 0;
}

GateTraining::GateTraining(const models::Decoder& model, const models::Gates& gates,
                           const models::SparseSettings& sparse, const GateLoss& loss)
    : gates_(gates),
      sparse_(model, &gates, sparse),
      loss_(loss),
      lists_(static_cast<size_t>(model.config().num_layers)) {}

LayerRuns GateTraining::runs(const models::Sequences& sequences, double share, bool trains) {
  const at::Device device = gates_.layers()[0].k.device();
  ragged_ = torch_ops::make_ragged(sequences.q_lens, sequences.k_lens, gates_.config().block_size,
                                   device);
  share_ = share;
  trains_ = trains;
  sum_ = at::zeros({}, at::TensorOptions(device).dtype(at::kDouble));
  fault_ = at::zeros_like(sum_);
  return {[this](const AttentionInput& input) { return first(input); },
          [this](const AttentionInput& input) { return again(input); }};
}

// On a CPU selection refuses scores that are not finite, which would end the run.
torch_ops::BlockLists GateTraining::choose_finite(const AttentionInput& input,
                                                  const at::Tensor& scores) {
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  return sparse_.select(input,
                        at::nan_to_num(scores, /*nan=*/0, /*posinf=*/0, /*neginf=*/-kInfinity));
}

torch_ops::BlockLists GateTraining::choose(const AttentionInput& input) {
  const at::Tensor scores = sparse_.scores(input);
  constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
  if (scores.is_cpu()) {
    fault_.masked_fill_(at::isnan(scores).logical_or(at::isposinf(scores)).any(), kNan);
    return choose_finite(input, scores);
  }
  // On a GPU such rows begin at -1 and attend to nothing, which could pass for a result.
  auto lists = sparse_.select(input, scores);
  fault_.masked_fill_((lists.begin < 0).any(), kNan);
  return lists;
}

at::Tensor GateTraining::attend(const AttentionInput& input) {
  if (models::window_cuts(input)) return models::dense_attention(input);
  return std::get<0>(sparse_.attend(input, choose_finite(input, sparse_.scores(input))));
}

at::Tensor GateTraining::first(const AttentionInput& input) {
  if (models::window_cuts(input)) return models::dense_attention(input);
  auto& lists = lists_[static_cast<size_t>(input.layer)];
  lists = choose(input);
  return std::get<0>(sparse_.attend(input, lists));
}

at::Tensor GateTraining::again(const AttentionInput& input) {
  if (models::window_cuts(input)) return models::dense_attention(input);
  if (trains_) train_gate(input);
  auto lists = std::exchange(lists_[static_cast<size_t>(input.layer)], {});
  if (!lists.begin.defined()) lists = choose(input);  // its only run
  return std::get<0>(sparse_.attend(input, lists));
}

void GateTraining::train_gate(const AttentionInput& input) {
  const at::Tensor target = [&] {
    const at::NoGradGuard no_grad;
    return std::get<1>(torch_ops::pooled_map(input.q.detach(), input.k.detach(), ragged_,
                                             input.scale, /*causal=*/true, /*group_max=*/false,
                                             /*normalise=*/true));
  }();
  const at::Tensor loss =
      torch_ops::gate_loss(gates_.scores(input, ragged_), target, ragged_, loss_.skip, loss_.kind)
          .mul(loss_.weight * share_);
  loss.backward();
  sum_.add_(loss.detach());
}

}  // namespace seer::train
