#include "seer/train/tasks/new_model.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>

#include "seer/base/error.h"
#include "seer/base/json.h"
#include "seer/base/random.h"

namespace seer::train {
namespace {

using nlohmann::json;

constexpr double kDeviation = 0.02;
constexpr uint64_t kWeightStream = 0x77656967687473;

json llama_config(const ModelSizes& sizes, int64_t length) {
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_size", sizes.hidden},
          {"intermediate_size", sizes.intermediate},
          {"num_hidden_layers", sizes.layers},
          {"num_attention_heads", sizes.heads},
          {"num_key_value_heads", sizes.kv_heads},
          {"head_dim", sizes.head_dim},
          {"hidden_act", "silu"},
          {"rms_norm_eps", sizes.rms_norm_eps},
          {"rope_theta", sizes.rope_theta},
          {"max_position_embeddings", length},
          {"initializer_range", kDeviation},
          {"tie_word_embeddings", true},
          {"attention_bias", false},
          {"mlp_bias", false}};
}

// Draws weights one after another, a stream of random numbers for each.
class Initialiser {
 public:
  explicit Initialiser(uint64_t seed) : seed_(seed) {}

  at::Tensor normal(int64_t rows, int64_t columns) {
    at::Tensor tensor = at::empty({rows, columns}, at::kFloat);
    Random random(seed_, kWeightStream + count_++);
    float* values = tensor.mutable_data_ptr<float>();
    for (int64_t i = 0; i < rows * columns; ++i) {
      values[i] = static_cast<float>(kDeviation * random.normal());
    }
    return tensor;
  }

 private:
  uint64_t seed_, count_ = 0;
};

}  // namespace

json new_model_config(const PretrainSettings& settings, const io::Tokenizer& tokenizer,
                      int64_t length) {
  json config;
  if (settings.model_config.empty()) {
    config = llama_config(settings.sizes, length);
  } else {
    config = read_json(settings.model_config);
    SEER_CHECK(config.is_object(), settings.model_config.string(), " is not a JSON object");
  }
  config["vocab_size"] = tokenizer.vocab_size();
  config["torch_dtype"] = "bfloat16";
  config["bos_token_id"] = tokenizer.bos_id() ? json(*tokenizer.bos_id()) : json();
  config["eos_token_id"] = tokenizer.eos_id() ? json(*tokenizer.eos_id()) : json();
  return config;
}

models::ModelWeights new_weights(const io::ModelConfig& config, uint64_t seed) {
  Initialiser draw(seed);
  models::ModelWeights weights;
  weights.embedding = draw.normal(config.vocab_size, config.hidden_size);
  weights.layers.resize(static_cast<size_t>(config.num_layers));
  for (models::LayerWeights& layer : weights.layers) {
    for (const models::LayerWeight& w : models::layer_weights()) {
      if (!w.is_of(config)) continue;
      const auto shape = w.shape(config);
      // What adds to the residual stream starts at zero.
      const bool adds =
          w.field == &models::LayerWeights::o || w.field == &models::LayerWeights::down;
      layer.*w.field = w.is_norm()                 ? at::ones(shape, at::kFloat)
                       : shape.size() == 1 || adds ? at::zeros(shape, at::kFloat)
                                                   : draw.normal(shape[0], shape[1]);
    }
  }
  weights.norm = at::ones({config.hidden_size}, at::kFloat);
  weights.head = config.tied_embeddings ? weights.embedding
                                        : draw.normal(config.vocab_size, config.hidden_size);
  return weights;
}

}  // namespace seer::train
