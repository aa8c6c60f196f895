#include "seer/models/weights.h"

namespace seer::models {
namespace {

using W = LayerWeights;
using Config = io::ModelConfig;

constexpr char kQkv[] = "self_attn.qkv_proj.weight", kGateUp[] = "mlp.gate_up_proj.weight";

constexpr LayerWeight kLayerWeights[] = {
    {"input_layernorm.weight", &W::input_norm, LayerWeight::hidden},
    {"self_attn.q_proj.weight", &W::q, LayerWeight::q_out, LayerWeight::hidden, nullptr, kQkv},
    {"self_attn.q_proj.bias", &W::q_bias, LayerWeight::q_out, {}, &Config::qkv_bias},
    {"self_attn.k_proj.weight", &W::k, LayerWeight::kv_out, LayerWeight::hidden, nullptr, kQkv},
    {"self_attn.k_proj.bias", &W::k_bias, LayerWeight::kv_out, {}, &Config::qkv_bias},
    {"self_attn.v_proj.weight", &W::v, LayerWeight::kv_out, LayerWeight::hidden, nullptr, kQkv},
    {"self_attn.v_proj.bias", &W::v_bias, LayerWeight::kv_out, {}, &Config::qkv_bias},
    {"self_attn.q_norm.weight", &W::q_norm, LayerWeight::head_dim, {}, &Config::qk_norm},
    {"self_attn.k_norm.weight", &W::k_norm, LayerWeight::head_dim, {}, &Config::qk_norm},
    {"self_attn.o_proj.weight", &W::o, LayerWeight::hidden, LayerWeight::q_out},
    {"self_attn.o_proj.bias", &W::o_bias, LayerWeight::hidden, {}, &Config::out_bias},
    {"post_attention_layernorm.weight", &W::post_norm, LayerWeight::hidden},
    {"mlp.gate_proj.weight", &W::gate, LayerWeight::inner, LayerWeight::hidden, nullptr, kGateUp},
    {"mlp.gate_proj.bias", &W::gate_bias, LayerWeight::inner, {}, &Config::mlp_bias},
    {"mlp.up_proj.weight", &W::up, LayerWeight::inner, LayerWeight::hidden, nullptr, kGateUp},
    {"mlp.up_proj.bias", &W::up_bias, LayerWeight::inner, {}, &Config::mlp_bias},
    {"mlp.down_proj.weight", &W::down, LayerWeight::hidden, LayerWeight::inner},
    {"mlp.down_proj.bias", &W::down_bias, LayerWeight::hidden, {}, &Config::mlp_bias},
};

}  // namespace

std::vector<int64_t> LayerWeight::shape(const io::ModelConfig& c) const {
  const int64_t sizes[] = {0,
                           c.hidden_size,
                           int64_t{c.num_heads} * c.head_dim,
                           int64_t{c.num_kv_heads} * c.head_dim,
                           c.intermediate_size,
                           c.head_dim};
  if (columns == none) return {sizes[rows]};
  return {sizes[rows], sizes[columns]};
}

std::span<const LayerWeight> layer_weights() {
  return kLayerWeights;
}

std::string layer_prefix(size_t layer) {
  return "model.layers." + std::to_string(layer) + ".";
}

std::vector<std::pair<std::string, at::Tensor*>> named_weights(ModelWeights& weights) {
  std::vector<std::pair<std::string, at::Tensor*>> named;
  const auto add = [&](const std::string& name, at::Tensor& tensor) {
    if (tensor.defined()) named.emplace_back(name, &tensor);
  };
  add(kEmbeddingName, weights.embedding);
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    for (const LayerWeight& w : kLayerWeights) {
      add(layer_prefix(i) + w.name, weights.layers[i].*w.field);
    }
  }
  add(kNormName, weights.norm);
  if (!weights.head.is_same(weights.embedding)) add(kHeadName, weights.head);
  return named;
}

}  // namespace seer::models
