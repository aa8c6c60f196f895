#pragma once
// The weights of a decoder: one table of those of a layer, which loading, saving, streaming and training
// go by.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seer/io/model_config.h"

namespace seer::models {

// As the model file has them: y = x W^T + b. Undefined where the family has none.
struct LayerWeights {
  at::Tensor input_norm, post_norm;  // [hidden]
  at::Tensor q, k, v, o;             // [Hq*D, hidden], [Hk*D, hidden] x2, [hidden, Hq*D]
  at::Tensor q_bias, k_bias, v_bias, o_bias;
  at::Tensor q_norm, k_norm;  // [D]
  at::Tensor gate, up, down;  // [inter, hidden] x2, [hidden, inter]
  at::Tensor gate_bias, up_bias, down_bias;
};
struct ModelWeights {
  at::Tensor embedding;  // [vocab, hidden]
  std::vector<LayerWeights> layers;
  at::Tensor norm;  // [hidden]
  at::Tensor head;  // [vocab, hidden]; the embedding itself where tied
};

// A weight of a layer.
struct LayerWeight {
  const char* name;  // in the model file, behind layer_prefix()
  at::Tensor LayerWeights::* field;
  enum Size { none, hidden, q_out, kv_out, inner, head_dim } rows, columns = none;
  bool io::ModelConfig::* given = nullptr;  // what says that the family has it; null: all have
  // The tensor that holds it in families with ModelConfig::fused_weights: such weights lie there one after
  // another, in the order of the table. Empty: one of its own.
  std::string_view fused = {};

  bool is_of(const io::ModelConfig& config) const { return given == nullptr || config.*given; }
  bool is_norm() const { return std::string_view(name).ends_with("norm.weight"); }
  std::vector<int64_t> shape(const io::ModelConfig& config) const;
};
std::span<const LayerWeight> layer_weights();  // in the order of the file

// "model.layers.<layer>."
std::string layer_prefix(size_t layer);
inline constexpr const char* kEmbeddingName = "model.embed_tokens.weight";
inline constexpr const char* kNormName = "model.norm.weight";
inline constexpr const char* kHeadName = "lm_head.weight";

// (name in the model file, tensor) of every weight, in the order of the file; tied heads once.
// Fused families give their parts under the unfused names.
std::vector<std::pair<std::string, at::Tensor*>> named_weights(ModelWeights& weights);

}  // namespace seer::models
