#include "seer/io/context.h"

#include <algorithm>
#include <cmath>

#include "seer/base/error.h"

namespace seer::io {

int64_t context_length(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  int64_t original = 0;
  // yarn's files give the length before or after stretching as max_position_embeddings, those of
  // linear and dynamic too: the longer of both is not warned of.
  if (rope.type == "yarn" && rope.original_max_position > 0) original = rope.original_max_position;
  if (rope.type == "linear" || rope.type == "dynamic") original = config.max_position;
  const double stretched = std::floor(static_cast<double>(original) * rope.factor);
  return std::max(config.max_position, static_cast<int64_t>(std::min(stretched, 1e15)));
}

std::string context_warning(const ModelConfig& config, int64_t length) {
  const int64_t context = context_length(config);
  if (context <= 0 || length <= context) return "";
  return message(
      "warning: ", length, " tokens are more than the ", context,
      " that this model was made for (max_position_embeddings): what it says beyond them is "
      "not to be relied on; choose a shorter length");
}

nlohmann::json stretched_config(const ModelConfig& config, double factor) {
  nlohmann::json json = config.raw;
  if (factor == 1) return json;
  const RopeConfig& rope = config.rope;
  const bool is_yarn = rope.type == "yarn";
  SEER_CHECK(config.model_type != "phi3",
             "the RoPE of a phi3 model is not stretched by YaRN: transformers knows longrope alone "
             "for these models; leave the factor at 1");
  SEER_CHECK(is_yarn || rope.type == "default", "YaRN stretches plain RoPE, but this ",
             config.model_type, " model has RoPE of type ", rope.type, ": leave the factor at 1");
  const int64_t original =
      is_yarn && rope.original_max_position > 0 ? rope.original_max_position : config.max_position;
  SEER_CHECK(original > 0,
             "config.json does not say how many tokens the model was made for: add "
             "max_position_embeddings");
  const auto length = std::llround(static_cast<double>(original) * factor);
  const bool older = json.contains("rope_scaling") && json["rope_scaling"].is_object();
  nlohmann::json scaling = nlohmann::json::object();
  if (is_yarn) scaling = json[older ? "rope_scaling" : "rope_parameters"];
  for (const char* key : {"type", "rope_theta", "attention_factor"}) scaling.erase(key);
  scaling["rope_type"] = "yarn";
  scaling["factor"] = static_cast<double>(length) / static_cast<double>(original);
  scaling["original_max_position_embeddings"] = original;
  json.erase("rope_parameters");
  json.erase("original_max_position_embeddings");
  json["rope_scaling"] = scaling;
  json["rope_theta"] = rope.theta;
  json["max_position_embeddings"] = length;
  return json;
}

}  // namespace seer::io
