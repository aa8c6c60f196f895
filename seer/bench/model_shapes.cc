#include "seer/bench/model_shapes.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "seer/base/error.h"
#include "seer/base/random.h"
#include "seer/kernels/impl.h"

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
                                  {"llama-3.2-1b", R"({
      "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
      "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
      "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256,
      "rms_norm_eps": 1e-05, "rope_theta": 500000.0, "max_position_embeddings": 131072,
      "rope_scaling": {"rope_type": "llama3", "factor": 32.0, "low_freq_factor": 1.0,
                       "high_freq_factor": 4.0, "original_max_position_embeddings": 8192},
      "tie_word_embeddings": true, "torch_dtype": "bfloat16"})"},
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
      "use_sliding_window": false, "tie_word_embeddings": true, "torch_dtype": "bfloat16"})"},
                                  {"smollm2-135m", R"({
      "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
      "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
      "num_attention_heads": 9, "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49152,
      "rms_norm_eps": 1e-05, "rope_theta": 100000.0, "max_position_embeddings": 8192,
      "tie_word_embeddings": true, "torch_dtype": "bfloat16"})"}};

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
    models::ModelWeights weights;
    weights.embedding = normal(config.vocab_size, config.hidden_size);
    for (int i = 0; i < config.num_layers; ++i) {
      models::LayerWeights layer;
      for (const models::LayerWeight& w : models::layer_weights()) {
        if (!w.is_of(config)) continue;
        const auto sizes = w.shape(config);
        at::Tensor& weight = layer.*w.field;
        weight = w.is_norm()         ? at::ones(sizes, options)
                 : sizes.size() == 1 ? at::zeros(sizes, options)
                                     : normal(sizes[0], sizes[1]);
        if (streamed) weight = weight.cpu();
      }
      weights.layers.push_back(layer);
    }
    weights.norm = at::ones({config.hidden_size}, options);
    weights.head =
        config.tied_embeddings ? weights.embedding : normal(config.vocab_size, config.hidden_size);
    models::Decoder model(config, std::move(weights));
    if (streamed) model.stream_layers();
    return model;
  }
  throw UsageError("--shapes " + name + ": known are " + known);
}

std::vector<int32_t> random_tokens(int64_t count, const io::Tokenizer& tokenizer,
                                   const io::ModelConfig& config) {
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  Random random(1);
  const auto ids = static_cast<uint64_t>(std::min(tokenizer.vocab_size(), config.vocab_size));
  for (int32_t& token : tokens) token = static_cast<int32_t>(random.below(ids));
  return tokens;
}

double flop_per_token(const io::ModelConfig& config, int64_t length, double density) {
  const double heads = config.num_heads, kv_heads = config.num_kv_heads;
  const double weights = config.hidden_size * config.head_dim * 2.0 * (heads + kv_heads) +
                         3.0 * static_cast<double>(config.hidden_size) * config.intermediate_size;
  const double attention = 2.0 * density * static_cast<double>(length) * heads * config.head_dim;
  return config.num_layers * (2 * weights + attention);
}

double peak_flops(const at::Device& device) {
  if (!device.is_cuda()) return 0;
  const int sm = kernels::cuda_device(device.index()).sm;
  return sm == 90 ? 989e12 : sm == 80 ? 312e12 : 0;
}

}  // namespace seer::bench
