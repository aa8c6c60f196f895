#pragma once
// config.json of a Hugging Face model folder, for the families that the one decoder runs: Llama
// 3.x, Mistral, Qwen2/2.5, Qwen3, Phi-3/4. The differences between families are fields, not code.

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "seer/base/rope_table.h"

namespace seer::io {

struct ModelConfig {
  std::string model_type;  // llama, mistral, qwen2, qwen3, phi3
  int hidden_size = 0;
  int intermediate_size = 0;
  int num_layers = 0;
  int num_heads = 0;     // Hq
  int num_kv_heads = 0;  // Hk
  int head_dim = 0;      // D
  int64_t vocab_size = 0;
  int64_t max_position = 0;
  double rms_norm_eps = 1e-6;
  bool tied_embeddings = false;
  bool qkv_bias = false;       // Qwen2; attention_bias of Llama and Qwen3
  bool out_bias = false;       // attention_bias of Llama and Qwen3
  bool mlp_bias = false;       // Llama
  bool qk_norm = false;        // Qwen3: RMSNorm over head_dim on q and k, before RoPE
  bool fused_weights = false;  // Phi-3: qkv_proj, gate_up_proj
  // Tokens a query sees back, itself included; 0: all. One per layer.
  std::vector<int64_t> sliding_window;
  RopeConfig rope;
  bool gates_rotate_whole =
      false;          // Qwen2: RoPE rotates all features of gates of another size than heads
  std::string dtype;  // f32, bf16 or f16; "": as the weights are stored
  std::vector<int64_t> eos_ids;  // generation ends at any of them
  int64_t bos_id = -1;           // -1: none
  nlohmann::json raw;            // the whole file

  // What is left out takes the family's default of transformers 5.24; the sizes (hidden_size,
  // intermediate_size, num_hidden_layers, num_attention_heads, vocab_size) must be there. `read`
  // takes the eos ids of generation_config.json where that file has some.
  // Error: file missing or not JSON; architecture unsupported (named, with the list); sizes that do
  // not fit together; unsupported rope type or activation; quantized weights.
  static ModelConfig read(const std::filesystem::path& folder);
  static ModelConfig from_json(const nlohmann::json& json, const std::string& where);
};

}  // namespace seer::io
