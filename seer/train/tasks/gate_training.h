#pragma once
// Block-sparse attention of a model that is trained, with gates that are trained along: blocks are
// chosen in a layer's first run, the gate gets its loss and gradient in the second (checkpointed.h).

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "seer/models/gates/gates.h"
#include "seer/models/sparse_attention.h"
#include "seer/torch/ops.h"
#include "seer/train/loop/task.h"
#include "seer/train/tasks/checkpointed.h"

namespace seer::train {

struct GateLoss {
  std::string kind = "kl";  // or "mse"
  double skip = 0.25;       // share of the first block rows without loss
  double weight = 10;       // of the sum over layers
};

// (name, weight) of all gates, for a parameter group.
std::vector<Parameter> gate_parameters(const models::Gates& gates);
// The weights of a layer's gate.
std::vector<at::Tensor> gate_leaves(const models::Gates& gates, int layer);
// GateLoss::skip where -1 stands for the default: 1/4 for kl, 0 for mse.
double gate_skip(double skip, const std::string& kind);
// What each setting of a task that trains gates may be. UsageError names the first that is not.
template <class Settings>
void check_each(const Settings& settings) {
  check(settings.loop);
  check(settings.data);
  check(settings.adamw);
  check(settings.schedule);
  settings.gate.check(/*head_dim=*/0);
  Settings copy = settings;
  each_setting(copy, CheckSetting());
  CheckSetting()("sequences x length", settings.sequences * settings.length,
                 range(2, limits::kStepTokens));
}

class GateTraining {
 public:
  // `gates` are those of `model`, which rotates as they do; both outlive this object. Their weights are
  // leaves. Error: as SparseAttention().
  GateTraining(const models::Decoder& model, const models::Gates& gates,
               const models::SparseSettings& sparse, const GateLoss& loss);

  // Begins a batch: the runs of its layers. `share` of a step; `trains`: gates get a gradient. The target of
  // the gate loss is the map of dense attention, from a pass of its own without gradients. Layers whose
  // window hides keys are dense and have no gate loss.
  LayerRuns runs(const models::Sequences& sequences, double share, bool trains);
  // Of the batch so far: weight x share x the sum over layers, [] f64.
  at::Tensor loss() const { return sum_; }
  // [] f64: NaN where scores of this batch were not finite, else 0: to be added to a loss, so that the step
  // is left out.
  at::Tensor fault() const { return fault_; }
  // Attention where nothing is trained.
  at::Tensor attend(const models::AttentionInput& input);

 private:
  torch_ops::BlockLists choose(const models::AttentionInput& input);
  torch_ops::BlockLists choose_finite(const models::AttentionInput& input,
                                      const at::Tensor& scores);
  at::Tensor first(const models::AttentionInput& input);
  at::Tensor again(const models::AttentionInput& input);
  void train_gate(const models::AttentionInput& input);

  const models::Gates& gates_;
  models::SparseAttention sparse_;
  const GateLoss loss_;
  torch_ops::Ragged ragged_;
  std::vector<torch_ops::BlockLists> lists_;  // of each layer
  double share_ = 0;
  bool trains_ = false;
  at::Tensor sum_, fault_;
};

}  // namespace seer::train
