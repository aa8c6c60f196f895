#pragma once
// A gate's folder: config.json and the weights of every layer's gate, in the published form
// (microsoft/SeerAttention) but stored as safetensors.

#include <filesystem>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include "seer/io/safetensors.h"

namespace seer::io {

struct ModelConfig;

// What a gate is: its form, poolings and sizes. Keys of config.json in brackets.
struct GateConfig {
  std::string base_model;   // [base_model]  as people call it
  std::string fingerprint;  // [base_model_fingerprint]  of its weights; empty: not known
  std::string type = "Qavg_Kmaxminavg";  // [seerattn_gate_type]  poolings of q and k
  int block_size = 64;                   // [seerattn_gate_block_size]  tokens, 16 ... 128, by 16
  int gate_dim = 0;                      // [seerattn_gate_hidden_size]  0: the model's head size
  bool force_double = false;             // [seerattn_gate_force_double]  a weight for q, too
  // Heads whose blocks are chosen by their own tokens: r features of a token, 16, 32 or 64, and the query
  // heads of every layer, ascending; as read, up to the last layer that has any. The file leaves out layers without, and both keys where no layer has any.
  int lookup_rank = 0;                         // [seer_lookup_rank]
  std::vector<std::vector<int>> lookup_heads;  // [seer_lookup_heads]

  // Poolings as bits (max 1, min 2, avg 4); Error names a `type` that is not of the form above.
  int q_pools() const;
  int k_pools() const;
  static int count(int pools);
  // Single form: q has one pooling and needs no weight (gate_dim == head_dim, not forced).
  bool is_double(int head_dim) const;
  // Error where a value is outside of its range. `head_dim` 0: not known.
  void check(int head_dim) const;
  // The same for gates of this model, with its layers and heads.
  void check(const ModelConfig& model) const;
};

// model.layers.{layer}.self_attn.attn_gate.{parameter}.weight
std::string gate_weight_name(int layer, const std::string& parameter);

// Reads `folder`/config.json. Where only attn_gate_weights.pth lies there, the error names the
// command that converts it.
GateConfig read_gate_config(const std::filesystem::path& folder);
// `folder`/attn_gate_weights.safetensors
std::filesystem::path gate_weights_path(const std::filesystem::path& folder);
// config.json = the base model's config with the gate's keys added. Written atomically.
void write_gate_config(const std::filesystem::path& folder, const nlohmann::json& base_config,
                       const GateConfig& config);

}  // namespace seer::io
