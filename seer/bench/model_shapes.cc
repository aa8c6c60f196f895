#include "seer/bench/model_shapes.h"

#include <ATen/ATen.h>

#include "seer/base/error.h"

namespace seer::bench {
namespace {

using nlohmann::json;

// What config.json says of the published models.
struct ModelShape {
  const char* name;
  const char* config;
};
constexpr ModelShape kShapes[] = {{"llama-3.1-8b", R"({
      "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
      "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
      "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 128256,
      "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "max_position_embeddings": 131072,
      "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0,
                       "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
      "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
                                  {"qwen2.5-14b", R"({
      "architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "hidden_act": "silu",
      "hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 48,
      "num_attention_heads": 40, "num_key_value_heads": 8, "vocab_size": 152064,
      "rms_norm_eps": 1e-05, "rope_theta": 1000000.0, "max_position_embeddings": 131072,
      "use_sliding_window": false, "tie_word_embeddings": false, "torch_dtype": "bfloat16"})"},
                                  {"qwen3-4b", R"({
      "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_act": "silu",
      "hidden_size": 2560, "intermediate_size": 9728, "num_hidden_layers": 36,
      "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936,
      "rms_norm_eps": 1e-06, "rope_theta": 1000000.0, "max_position_embeddings": 131072,
      "use_sliding_window": false, "tie_word_embeddings": true, "torch_dtype": "bfloat16"})"}};

}  // namespace

std::vector<std::string> model_shapes() {
  std::vector<std::string> names;
  for (const ModelShape& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

models::Decoder random_model(const std::string& name, at::ScalarType dtype,
                             const at::Device& device, bool streamed, uint64_t seed) {
  std::string known;
  for (const ModelShape& shape : kShapes) {
    known += std::string(known.empty() ? "" : ", ") + shape.name;
    if (name != shape.name) continue;
    const auto config = io::ModelConfig::from_json(json::parse(shape.config), shape.name);
    at::manual_seed(seed);
    const auto options = at::TensorOptions(device).dtype(dtype);
    const auto normal = [&](int64_t rows, int64_t columns) {
      return at::empty({rows, columns}, options).normal_(0, 0.02);
    };
    const auto bias = [&](bool there, int64_t size) {
      return there ? at::zeros({size}, options) : at::Tensor();
    };
    const auto norm = [&](bool there, int64_t size) {
      return there ? at::ones({size}, options) : at::Tensor();
    };
    const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
    const int64_t q_out = int64_t{config.num_heads} * config.head_dim;
    const int64_t kv_out = int64_t{config.num_kv_heads} * config.head_dim;
    models::ModelWeights weights;
    weights.embedding = normal(config.vocab_size, hidden);
    for (int i = 0; i < config.num_layers; ++i) {
      models::LayerWeights w;
      w.input_norm = norm(true, hidden), w.post_norm = norm(true, hidden);
      w.q = normal(q_out, hidden), w.k = normal(kv_out, hidden), w.v = normal(kv_out, hidden);
      w.o = normal(hidden, q_out);
      w.q_bias = bias(config.qkv_bias, q_out), w.k_bias = bias(config.qkv_bias, kv_out);
      w.v_bias = bias(config.qkv_bias, kv_out), w.o_bias = bias(config.out_bias, hidden);
      w.q_norm = norm(config.qk_norm, config.head_dim);
      w.k_norm = norm(config.qk_norm, config.head_dim);
      w.gate = normal(inner, hidden), w.up = normal(inner, hidden), w.down = normal(hidden, inner);
      weights.layers.push_back(w);
      if (!streamed) continue;
      for (const auto& [name, weight] : models::named_weights(weights)) {
        if (name.starts_with("model.layers.")) *weight = weight->cpu();
      }
    }
    weights.norm = norm(true, hidden);
    weights.head = config.tied_embeddings ? weights.embedding : normal(config.vocab_size, hidden);
    models::Decoder model(config, std::move(weights));
    if (streamed) model.stream_layers();
    return model;
  }
  throw UsageError("--shapes " + name + ": known are " + known);
}

}  // namespace seer::bench
