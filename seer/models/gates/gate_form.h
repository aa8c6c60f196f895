#pragma once
// What one form of gates computes: vectors of rows and of key blocks, whose products are scores
// (torch_ops::attn_gate_score). The weights themselves and their folders are gates.h's.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "seer/io/gate_file.h"
#include "seer/io/model_config.h"
#include "seer/models/attention.h"
#include "seer/torch/ops.h"

namespace seer::models {

// Parameters of a layer, f32, by the letter that a gate's folder calls them by.
struct GateWeights {
  at::Tensor q;  // undefined where the form has none
  at::Tensor k;
  at::Tensor& of(char letter) { return letter == 'q' ? q : k; }
  const at::Tensor& of(char letter) const { return letter == 'q' ? q : k; }
};

struct GateVectors {
  at::Tensor q;  // [R, Hq, d] f32, of the rows given now: never cached
  at::Tensor k;  // [blocks, Hg, d] f32, of the key blocks given now: SequenceCache's part of a gate
};

class GateForm {
 public:
  virtual ~GateForm() = default;
  // Letter and shape of each parameter of a layer; all layers are alike.
  virtual std::vector<std::pair<char, std::vector<int64_t>>> weights() const = 0;
  // Of a layer's input, whose keys given now are those of the queries' tokens. Where gradients are enabled
  // both are differentiable in the weights, never in the input.
  virtual GateVectors vectors(const AttentionInput& input, const torch_ops::Ragged& ragged,
                              const GateWeights& weights) = 0;
};

// The form that `config` asks for. Error: it does not fit the model.
std::unique_ptr<GateForm> make_gate_form(const io::GateConfig& config,
                                         const io::ModelConfig& model);

}  // namespace seer::models
