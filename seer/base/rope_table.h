#pragma once
// Rotary position embedding: inverse frequencies of every scaling that the supported models use, and
// the tables of cosines and sines. Same numbers as transformers' `ROPE_INIT_FUNCTIONS`: the angle
// is position * inv_freq rounded to f32.

#include <cstdint>
#include <string>
#include <vector>

namespace seer {

// What config.json says under `rope_scaling` (or `rope_parameters`), as read; 0 or empty: not given.
struct RopeConfig {
  std::string type = "default";  // default, linear, dynamic, llama3, yarn, longrope
  double theta = 10000;
  int rotary_dim = 0;        // features that rotate: head_dim * partial_rotary_factor
  int64_t max_position = 0;  // max_position_embeddings
  int64_t original_max_position = 0;
  double factor = 0;
  // yarn, longrope: `factor`, where given, goes before the ratio of the two lengths (transformers 5);
  // else that ratio does (transformers 4.51, and the published gates).
  bool factor_first = false;
  double attention_factor = 0;                       // yarn, longrope
  double beta_fast = 0, beta_slow = 0;               // yarn; 32 and 1 where not given
  double mscale = 0, mscale_all_dim = 0;             // yarn
  bool truncate = true;                              // yarn
  double low_freq_factor = 0, high_freq_factor = 0;  // llama3
  std::vector<double> short_factor, long_factor;     // longrope, rotary_dim / 2 each
};

struct RopeFrequencies {
  std::vector<float> inv_freq;  // [rotary_dim / 2]
  float attention_factor = 1;   // multiplies cos and sin
};
// For sequences of `length` tokens (dynamic and longrope depend on it). Error: an unknown type (named,
// with the list), a missing or impossible setting.
RopeFrequencies rope_frequencies(const RopeConfig& config, int64_t length);

// cos, sin [positions, rotary_dim / 2], attention factor included.
struct RopeTable {
  std::vector<float> cos, sin;
};
RopeTable rope_table(const RopeFrequencies& frequencies, const std::vector<int64_t>& positions);

}  // namespace seer
