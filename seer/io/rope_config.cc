#include "seer/io/rope_config.h"

#include "seer/base/error.h"

namespace seer::io {
namespace {

constexpr double kLargest = 1e12;
constexpr int64_t kMostPositions = int64_t{1} << 32;  // positions

std::string rope_type(const JsonNode& scaling, const std::string& model_type) {
  std::string type = scaling.string_or("type", scaling.string_or("rope_type", "default"));
  if (scaling.has("rope_type")) type = scaling.string_or("rope_type", type);
  // Files of Phi-3 from before the method had its name say "su" or "yarn".
  if (model_type == "phi3" && (type == "su" || type == "yarn")) type = "longrope";
  for (const char* known : {"default", "linear", "dynamic", "llama3", "yarn", "longrope"}) {
    if (type == known) return type;
  }
  fail(scaling.where(), ": unsupported rope type \"", type,
       "\"; supported: default, linear, dynamic, llama3, yarn, longrope");
}

std::vector<double> factors(const JsonNode& scaling, const char* key) {
  std::vector<double> values;
  if (!scaling.has(key)) return values;
  const auto& list = scaling.json().at(key);
  SEER_CHECK(list.is_array(), scaling.where(), ": \"", key, "\" must be a list of numbers");
  for (const auto& value : list) {
    SEER_CHECK(value.is_number() && value > 0 && value < kLargest, scaling.where(), ": \"", key,
               "\" must hold positive numbers");
    values.push_back(value.get<double>());
  }
  return values;
}

void read_scaling(const JsonNode& scaling, const std::string& model_type, RopeConfig& rope) {
  rope.type = rope_type(scaling, model_type);
  rope.factor = scaling.number_or("factor", 0, kLargest, 0);
  rope.attention_factor = scaling.number_or("attention_factor", 0, kLargest, 0);
  rope.beta_fast = scaling.number_or("beta_fast", 0, kLargest, 0);
  rope.beta_slow = scaling.number_or("beta_slow", 0, kLargest, 0);
  rope.mscale = scaling.number_or("mscale", 0, kLargest, 0);
  rope.mscale_all_dim = scaling.number_or("mscale_all_dim", 0, kLargest, 0);
  rope.truncate = scaling.boolean_or("truncate", true);
  rope.low_freq_factor = scaling.number_or("low_freq_factor", 0, kLargest, 0);
  rope.high_freq_factor = scaling.number_or("high_freq_factor", 0, kLargest, 0);
  rope.short_factor = factors(scaling, "short_factor");
  rope.long_factor = factors(scaling, "long_factor");
  rope.original_max_position =
      scaling.integer_or("original_max_position_embeddings", 1, kMostPositions, 0);
}

}  // namespace

RopeConfig read_rope_config(const JsonNode& fields, const std::string& model_type, int head_dim,
                            int64_t max_position) {
  RopeConfig rope;
  rope.max_position = max_position;
  rope.theta = fields.number_or("rope_theta", 1e-6, kLargest, 10000);
  double part = fields.number_or("partial_rotary_factor", 0, 1, 1);

  const bool newer = fields.has("rope_parameters");
  const char* key = newer ? "rope_parameters" : "rope_scaling";
  const std::string where = fields.where() + " (" + key + ")";
  if (fields.has(key)) {
    const JsonNode scaling(fields.json().at(key), where);
    read_scaling(scaling, model_type, rope);
    rope.theta = scaling.number_or("rope_theta", 1e-6, kLargest, rope.theta);
    part = scaling.number_or("partial_rotary_factor", 0, 1, part);
  }
  // Phi-3 keeps the length before the extension beside rope_scaling, not in it.
  if (rope.type == "longrope" && fields.has("original_max_position_embeddings")) {
    rope.original_max_position =
        fields.at("original_max_position_embeddings").integer(1, kMostPositions);
  } else if (rope.type == "longrope" && rope.original_max_position == 0 && model_type == "phi3") {
    rope.original_max_position = 4096;
  }
  rope.rotary_dim = static_cast<int>(head_dim * part);
  SEER_CHECK(rope.rotary_dim >= 2 && rope.rotary_dim % 2 == 0, fields.where(),
             ": the rotary width, head_dim * partial_rotary_factor = ", rope.rotary_dim,
             ", must be even and at least 2");
  try {
    rope_frequencies(rope, max_position);
  } catch (const Error& error) {
    fail(where, ": ", error.what());
  }
  return rope;
}

}  // namespace seer::io
