#pragma once
// What one form of gates computes: vectors of rows and of key blocks, whose products are scores
// (torch_ops::attn_gate_score). The weights themselves and their folders are gates.h's.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "seer/io/gate_file.h"
#include "seer/io/model_config.h"
#include "seer/models/attention.h"
#include "seer/torch/ops.h"

namespace seer::models {

// Parameters of a layer, f32; undefined: it has none of the kind.
struct GateWeights {
  at::Tensor q, k;                // [heads, features in, d]
  at::Tensor lookup_q, lookup_k;  // [L, D, r]  of its L lookup heads (Gates::lookups)
};

// A kind of parameter. All that walks parameters (folders, first values, optimizers, checkpoints) does it
// by parameters_of(), so that a new one is a field above and a line here.
struct GateParameter {
  const char* name;  // in a gate's folder (io::gate_weight_name)
  at::Tensor GateWeights::* weight;
  uint64_t stream;  // of the draws of first values; twice the layer is added
};
inline constexpr GateParameter kGateParameters[] = {
    {"mask_linear_q", &GateWeights::q, 0},
    {"mask_linear_k", &GateWeights::k, 1},
    {"lookup_q", &GateWeights::lookup_q, uint64_t{2} << 32},
    {"lookup_k", &GateWeights::lookup_k, uint64_t{3} << 32},
};
// Those that the layer has.
inline std::vector<GateParameter> parameters_of(const GateWeights& gate) {
  std::vector<GateParameter> found;
  for (const GateParameter& parameter : kGateParameters) {
    if ((gate.*parameter.weight).defined()) found.push_back(parameter);
  }
  return found;
}

struct GateVectors {
  at::Tensor q;  // [R, Hq, d] f32, of the rows given now: never cached
  at::Tensor k;  // [blocks, Hg, d] f32, of the key blocks given now: SequenceCache's part of a gate
};

class GateForm {
 public:
  virtual ~GateForm() = default;
  // Of the form's parameters of a layer the shapes: tensors without memory (meta). All layers are alike.
  virtual GateWeights shapes() const = 0;
  // Of a layer's input, whose keys given now are those of the queries' tokens. Where gradients are enabled
  // both are differentiable in the weights, never in the input.
  virtual GateVectors vectors(const AttentionInput& input, const torch_ops::Ragged& ragged,
                              const GateWeights& weights) = 0;
};

// The form that `config` asks for. Error: it does not fit the model.
std::unique_ptr<GateForm> make_gate_form(const io::GateConfig& config,
                                         const io::ModelConfig& model);

}  // namespace seer::models
