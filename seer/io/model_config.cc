#include "seer/io/model_config.h"

#include <algorithm>

#include "seer/base/error.h"
#include "seer/base/json.h"
#include "seer/base/limits.h"
#include "seer/base/shown.h"
#include "seer/base/utf8.h"
#include "seer/io/rope_config.h"

namespace seer::io {
namespace {

using limits::kConfigCount;
using limits::kConfigSize;
using limits::kPositions;
using limits::kVocabulary;

// What transformers 5.24 assumes where config.json says nothing (configuration_<family>.py).
struct Family {
  const char* model_type;
  const char* architecture;
  int64_t num_kv_heads;  // 0: as many as query heads
  int64_t head_dim;      // 0: hidden_size / num_attention_heads
  int64_t max_position;
  double rms_norm_eps;
  int64_t sliding_window;  // 0: none
  int64_t bos_id, eos_id;  // -1: none
};
constexpr Family kFamilies[] = {
    {"llama", "LlamaForCausalLM", 0, 0, 2048, 1e-6, 0, 1, 2},
    {"mistral", "MistralForCausalLM", 8, 0, 4096 * 32, 1e-6, 4096, 1, 2},
    {"qwen2", "Qwen2ForCausalLM", 32, 0, 32768, 1e-6, 4096, -1, -1},
    {"qwen3", "Qwen3ForCausalLM", 32, 128, 32768, 1e-6, 4096, -1, -1},
    {"phi3", "Phi3ForCausalLM", 0, 0, 4096, 1e-5, 0, 1, 32000},
};

[[noreturn]] void unsupported_architecture(const std::string& where, const std::string& found) {
  std::string list;
  for (const auto& family : kFamilies) {
    list += std::string(list.empty() ? "" : ", ") + family.architecture + " (" + family.model_type +
            ")";
  }
  fail(where, ": unsupported architecture ", found, "; supported: ", list);
}

const Family& family_of(const JsonNode& fields) {
  std::string architecture;
  if (fields.has("architectures")) {
    const auto& list = fields.json().at("architectures");
    SEER_CHECK(list.is_array() && (list.empty() || list[0].is_string()), fields.where(),
               ": \"architectures\" must be a list of names");
    if (!list.empty()) architecture = list[0].get<std::string>();
  }
  const std::string type = fields.string_or("model_type", "");
  const std::string found = type.empty() && architecture.empty()
                                ? "(neither architectures nor model_type given)"
                                : shown(architecture) + " (" + shown(type) + ")";
  // Of a model for pictures and text, text_config may name a supported family.
  if (fields.has("text_config")) {
    unsupported_architecture(fields.where(), found + ", of which text_config is a part");
  }
  for (const auto& family : kFamilies) {
    // Files of the first Llama spell it LLaMAForCausalLM.
    const bool same = lower_ascii(architecture) == lower_ascii(family.architecture);
    const bool same_type = type == family.model_type;
    if ((same_type || type.empty()) && same) return family;
    if (same_type && architecture.empty()) return family;
  }
  unsupported_architecture(fields.where(), found);
}

void read_sizes(const JsonNode& fields, const Family& family, ModelConfig& config) {
  config.hidden_size = static_cast<int>(fields.at("hidden_size").integer(1, kConfigSize));
  config.intermediate_size =
      static_cast<int>(fields.at("intermediate_size").integer(1, kConfigSize));
  config.num_layers = static_cast<int>(fields.at("num_hidden_layers").integer(1, kConfigCount));
  config.num_heads = static_cast<int>(fields.at("num_attention_heads").integer(1, kConfigCount));
  const bool said = fields.json().contains("num_key_value_heads");
  const int64_t kv_default =
      said || family.num_kv_heads == 0 ? config.num_heads : family.num_kv_heads;
  config.num_kv_heads =
      static_cast<int>(fields.integer_or("num_key_value_heads", 1, kConfigCount, kv_default));
  config.vocab_size = fields.at("vocab_size").integer(1, kVocabulary);
  config.max_position =
      fields.integer_or("max_position_embeddings", 1, kPositions, family.max_position);
  config.head_dim =
      static_cast<int>(fields.integer_or("head_dim", 1, kConfigSize, family.head_dim));
  const std::string where = fields.where();
  SEER_CHECK(config.num_heads % config.num_kv_heads == 0, where, ": num_attention_heads is ",
             config.num_heads, ", not a multiple of num_key_value_heads ", config.num_kv_heads);
  if (config.head_dim == 0) {
    SEER_CHECK(config.hidden_size % config.num_heads == 0, where, ": hidden_size is ",
               config.hidden_size, ", not a multiple of num_attention_heads ", config.num_heads,
               ", and no head_dim is given");
    config.head_dim = config.hidden_size / config.num_heads;
  }
}

// Which layers slide: all of them in Mistral and Phi-3; in Qwen only where use_sliding_window says
// so, from layer max_window_layers on. A list layer_types (newer files) says it layer by layer.
std::vector<int64_t> read_sliding_window(const JsonNode& fields, const Family& family,
                                         const ModelConfig& config) {
  const bool qwen = config.model_type == "qwen2" || config.model_type == "qwen3";
  const size_t num_layers = static_cast<size_t>(config.num_layers);
  std::vector<int64_t> windows(num_layers, 0);
  if (config.model_type == "llama") return windows;
  const bool said = fields.json().contains("sliding_window");  // null means none
  const int64_t window =
      fields.integer_or("sliding_window", 1, kPositions, said ? 0 : family.sliding_window);
  if (window == 0 || (qwen && !fields.boolean_or("use_sliding_window", false))) return windows;
  if (fields.has("layer_types")) {
    const auto& types = fields.json().at("layer_types");
    SEER_CHECK(types.is_array() && types.size() == num_layers, fields.where(),
               ": \"layer_types\" must be a list of ", num_layers, " names, one per layer");
    for (size_t i = 0; i < num_layers; ++i) {
      SEER_CHECK(types[i] == "sliding_attention" || types[i] == "full_attention", fields.where(),
                 ": layer_types[", i, "] must be sliding_attention or full_attention");
      windows[i] = types[i] == "sliding_attention" ? window : 0;
    }
    return windows;
  }
  const size_t first =
      qwen ? static_cast<size_t>(fields.integer_or("max_window_layers", 0, kConfigCount, 28)) : 0;
  std::fill(windows.begin() + static_cast<ptrdiff_t>(std::min(first, num_layers)), windows.end(),
            window);
  return windows;
}

// "": as the weights are stored.
std::string read_dtype(const JsonNode& fields) {
  const char* key = fields.has("dtype") ? "dtype" : "torch_dtype";
  std::string name = fields.string_or(key, "auto");
  if (name.rfind("torch.", 0) == 0) name = name.substr(6);
  static constexpr std::pair<const char*, const char*> kNames[] = {
      {"auto", ""},     {"float32", "f32"}, {"float", "f32"},  {"fp32", "f32"},
      {"f32", "f32"},   {"float64", "f32"}, {"double", "f32"}, {"bfloat16", "bf16"},
      {"bf16", "bf16"}, {"float16", "f16"}, {"half", "f16"},   {"fp16", "f16"},
      {"f16", "f16"}};
  for (const auto& [known, dtype] : kNames) {
    if (name == known) return dtype;
  }
  fail(fields.where(), ": \"", key, "\" is ", shown(name),
       ", expected float32, bfloat16 or float16");
}

std::vector<int64_t> read_eos(const JsonNode& fields, int64_t otherwise) {
  const char* key = "eos_token_id";
  if (!fields.json().contains(key)) {
    return otherwise < 0 ? std::vector<int64_t>{} : std::vector<int64_t>{otherwise};
  }
  if (!fields.has(key)) return {};
  const JsonNode field = fields.at(key);
  std::vector<int64_t> ids;
  for (size_t i = 0; i < (field.is_array() ? field.array_size() : 1); ++i) {
    const JsonNode entry = field.is_array() ? field.at(i) : field;
    const int64_t id = entry.integer(-1, kVocabulary);
    if (id >= 0) ids.push_back(id);  // old files say -1 for none
  }
  return ids;
}

}  // namespace

ModelConfig ModelConfig::from_json(const nlohmann::json& json, const std::string& where) {
  const JsonNode fields(json, where);
  const Family& family = family_of(fields);
  SEER_CHECK(!fields.has("quantization_config"), where,
             ": quantized weights are not supported; use the model's f32, bf16 or f16 form");
  const std::string activation = fields.string_or("hidden_act", "silu");
  SEER_CHECK(activation == "silu" || activation == "swish", where, ": \"hidden_act\" is ",
             shown(activation), ", expected silu");

  ModelConfig config;
  config.model_type = family.model_type;
  read_sizes(fields, family, config);
  config.rms_norm_eps = fields.number_or("rms_norm_eps", 0, 1, family.rms_norm_eps);
  config.tied_embeddings = fields.boolean_or("tie_word_embeddings", false);
  const bool llama = config.model_type == "llama", qwen3 = config.model_type == "qwen3";
  const bool bias = (llama || qwen3) && fields.boolean_or("attention_bias", false);
  config.qkv_bias = bias || config.model_type == "qwen2";
  config.out_bias = bias;
  config.mlp_bias = llama && fields.boolean_or("mlp_bias", false);
  config.qk_norm = qwen3;
  config.fused_weights = config.model_type == "phi3";
  config.gates_rotate_whole = config.model_type == "qwen2";
  config.sliding_window = read_sliding_window(fields, family, config);
  config.rope = read_rope_config(fields, config.model_type, config.head_dim, config.max_position);
  config.dtype = read_dtype(fields);
  config.eos_ids = read_eos(fields, family.eos_id);
  config.bos_id = json.contains("bos_token_id")
                      ? fields.integer_or("bos_token_id", -1, kVocabulary, -1)
                      : family.bos_id;
  config.raw = json;
  return config;
}

ModelConfig ModelConfig::read(const std::filesystem::path& folder) {
  const auto path = folder / "config.json";
  std::error_code error;
  SEER_CHECK(std::filesystem::is_directory(folder, error), folder.string(),
             " is not a folder; give a model folder that holds config.json and *.safetensors");
  SEER_CHECK(std::filesystem::exists(path, error), path.string(),
             " is missing; give a model folder that holds config.json and *.safetensors");
  ModelConfig config = from_json(read_json(path.string()), path.string());
  const auto generation = folder / "generation_config.json";
  if (std::filesystem::exists(generation, error)) {
    const std::string where = generation.string();
    const auto json = read_json(where);
    const JsonNode fields(json, where);
    if (fields.has("eos_token_id")) config.eos_ids = read_eos(fields, -1);
  }
  return config;
}

}  // namespace seer::io
