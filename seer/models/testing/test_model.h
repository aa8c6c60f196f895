#pragma once
// For tests: a small model with random weights, and plain formulas to compare with.

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/softmax.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "seer/base/random.h"
#include "seer/models/decoder.h"

namespace seer::models::test {

// Standard normal draws that do not depend on torch's generator.
inline at::Tensor normal(std::vector<int64_t> shape, uint64_t seed, double deviation = 1) {
  at::Tensor out = at::full(shape, 0, at::kFloat);
  Random random(seed);
  float* values = out.mutable_data_ptr<float>();
  for (int64_t i = 0; i < out.numel(); ++i) {
    values[i] = static_cast<float>(deviation * random.normal());
  }
  return out;
}

inline nlohmann::json small_config() {
  return {{"model_type", "llama"},    {"architectures", {"LlamaForCausalLM"}},
          {"hidden_size", 64},        {"intermediate_size", 96},
          {"num_hidden_layers", 2},   {"num_attention_heads", 4},
          {"num_key_value_heads", 2}, {"head_dim", 16},
          {"vocab_size", 120},        {"max_position_embeddings", 4096},
          {"rope_theta", 10000.0},    {"tie_word_embeddings", true},
          {"torch_dtype", "float32"}, {"eos_token_id", nlohmann::json::array()},
          {"bos_token_id", 1}};
}

// Large weights: attention of a small random model is otherwise nearly uniform.
inline Decoder small_model(const nlohmann::json& json = small_config(), uint64_t seed = 1) {
  const auto config = io::ModelConfig::from_json(json, "test");
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  const int64_t q_out = int64_t{config.num_heads} * config.head_dim;
  const int64_t kv_out = int64_t{config.num_kv_heads} * config.head_dim;
  const auto draw = [&](std::vector<int64_t> shape) { return normal(shape, ++seed, 0.25); };
  ModelWeights weights;
  weights.embedding = normal({config.vocab_size, hidden}, ++seed);
  for (int i = 0; i < config.num_layers; ++i) {
    LayerWeights w;
    w.input_norm = normal({hidden}, ++seed, 0.1).add(1);
    w.post_norm = normal({hidden}, ++seed, 0.1).add(1);
    w.q = draw({q_out, hidden});
    w.k = draw({kv_out, hidden});
    w.v = draw({kv_out, hidden});
    w.o = draw({hidden, q_out});
    w.gate = draw({inner, hidden});
    w.up = draw({inner, hidden});
    w.down = draw({hidden, inner});
    if (config.qkv_bias) {
      w.q_bias = draw({q_out});
      w.k_bias = draw({kv_out});
      w.v_bias = draw({kv_out});
    }
    weights.layers.push_back(w);
  }
  weights.norm = normal({hidden}, ++seed, 0.1).add(1);
  if (!config.tied_embeddings) weights.head = draw({config.vocab_size, hidden});
  return Decoder(config, weights);
}

inline std::vector<int32_t> some_ids(int64_t count, uint64_t seed = 3) {
  Random random(seed);
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < count; ++i) ids.push_back(static_cast<int32_t>(random.below(120)));
  return ids;
}

// Masked softmax with a full matrix: o [T, Hq, D] of one sequence whose queries are its last
// tokens.
inline at::Tensor plain_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  double scale, int64_t window) {
  const int64_t group = q.size(1) / k.size(1);
  const at::Tensor keys = k.repeat_interleave(group, 1).permute({1, 2, 0});
  const at::Tensor values = v.repeat_interleave(group, 1).transpose(0, 1);
  const at::Tensor scores = at::matmul(q.transpose(0, 1), keys).mul(scale);
  const at::Tensor at_key = at::arange(k.size(0), at::kLong);
  const at::Tensor at_query = at::arange(k.size(0) - q.size(0), k.size(0), at::kLong).unsqueeze(1);
  at::Tensor hidden = at_key.gt(at_query);
  if (window > 0) hidden = hidden.logical_or(at_key.le(at_query.sub(window)));
  const at::Tensor p = at::softmax(scores.masked_fill(hidden, -1e30), -1);
  return at::matmul(p, values).transpose(0, 1);
}

inline double largest_difference(const at::Tensor& a, const at::Tensor& b) {
  return a.sub(b).abs().max().item().toDouble();
}

// A folder of its own under the system's temporary one, removed at the end.
struct TemporaryFolder {
  std::filesystem::path path;
  TemporaryFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "seer_test_XXXXXX").string();
    path = ::mkdtemp(name.data());
  }
  ~TemporaryFolder() { std::filesystem::remove_all(path); }
};

}  // namespace seer::models::test
