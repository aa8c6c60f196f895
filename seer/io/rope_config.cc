#include "seer/io/rope_config.h"

#include "seer/base/error.h"
#include "seer/base/limits.h"
#include "seer/base/shown.h"

namespace seer::io {
namespace {

constexpr double kLargest = limits::kRopeNumber;

std::string rope_type(const JsonNode& scaling, const std::string& model_type) {
  std::string type = scaling.string_or("type", scaling.string_or("rope_type", "default"));
  if (scaling.has("rope_type")) type = scaling.string_or("rope_type", type);
  // Files of Phi-3 from before the method had its name say "su" or "yarn".
  if (model_type == "phi3" && (type == "su" || type == "yarn")) type = "longrope";
  for (const char* known : {"default", "linear", "dynamic", "llama3", "yarn", "longrope"}) {
    if (type == known) return type;
  }
  fail(scaling.where(), ": unsupported rope type ", shown(type),
       "; supported: default, linear, dynamic, llama3, yarn, longrope");
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
      scaling.integer_or("original_max_position_embeddings", 1, limits::kPositions, 0);
}

// The length before the extension: beside rope_scaling, where that is said, else in it. Phi-3 always
// has it beside.
void read_original_length(const JsonNode& fields, const std::string& model_type,
                          int64_t max_position, RopeConfig& rope) {
  if (rope.type != "llama3" && rope.type != "yarn" && rope.type != "longrope") return;
  if (fields.has("original_max_position_embeddings")) {
    rope.original_max_position =
        fields.at("original_max_position_embeddings").integer(1, limits::kPositions);
  } else if (model_type == "phi3") {
    rope.original_max_position = 4096;
  } else if (rope.original_max_position == 0 && rope.type != "yarn") {
    rope.original_max_position = max_position;
  }
}

}  // namespace

RopeConfig read_rope_config(const JsonNode& fields, const std::string& model_type, int head_dim,
                            int64_t max_position) {
  RopeConfig rope;
  rope.factor_first = true;
  rope.max_position = max_position;
  rope.theta = fields.number_or("rope_theta", 1e-6, kLargest, 10000);
  double part = fields.number_or("partial_rotary_factor", 0, 1, 1);

  const bool older = fields.has("rope_scaling") && !fields.json().at("rope_scaling").empty();
  const char* key = older ? "rope_scaling" : "rope_parameters";
  const std::string where = fields.where() + " (" + key + ")";
  if (fields.has(key)) {
    const JsonNode scaling(fields.json().at(key), where);
    for (const char* layers : {"full_attention", "sliding_attention"}) {
      SEER_CHECK(!scaling.has(layers), where, ": rotary settings of ", layers,
                 " layers alone are not supported, expected one set for all layers");
    }
    read_scaling(scaling, model_type, rope);
    rope.theta = scaling.number_or("rope_theta", 1e-6, kLargest, rope.theta);
    part = scaling.number_or("partial_rotary_factor", 0, 1, part);
  }
  SEER_CHECK(part == 1 || model_type == "phi3", fields.where(), ": \"partial_rotary_factor\" is ",
             part, ", expected 1: models of type ", model_type, " rotate whole heads");
  read_original_length(fields, model_type, max_position, rope);
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
