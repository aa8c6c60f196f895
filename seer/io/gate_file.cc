#include "seer/io/gate_file.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <string_view>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/json.h"
#include "seer/base/limits.h"
#include "seer/base/shown.h"
#include "seer/io/hub_name.h"
#include "seer/io/model_config.h"

namespace seer::io {
namespace {

constexpr int kSmallestBlock = 16, kLargestBlock = 128;
constexpr int kLookupRanks[] = {16, 32, 64};
constexpr const char* kFingerprintKey = "base_model_fingerprint";
constexpr const char *kLookupRankKey = "seer_lookup_rank", *kLookupHeadsKey = "seer_lookup_heads";

// "maxminavg" -> 7. The poolings come in the order max, min, avg, each at most once; at least one.
// 0: not of that form.
int parse_pools(std::string_view text) {
  int pools = 0, bit = 1;
  for (const std::string_view name : {"max", "min", "avg"}) {
    if (text.substr(0, name.size()) == name) {
      pools |= bit;
      text.remove_prefix(name.size());
    }
    bit <<= 1;
  }
  return text.empty() ? pools : 0;
}

struct Pools {
  int q, k;
};
Pools parse_type(const std::string& type) {
  const std::string_view view = type;
  const size_t split = view.find("_K");
  Pools pools{0, 0};
  if (split != view.npos && view[0] == 'Q') {
    pools = {parse_pools(view.substr(1, split - 1)), parse_pools(view.substr(split + 2))};
  }
  SEER_CHECK(pools.q != 0 && pools.k != 0, "gate type ", shown(type),
             " is not known; expected Q..._K... with poolings in the order max, min, avg, such as "
             "Qavg_Kmaxminavg");
  return pools;
}

// {"3": [1, 5], "7": [0]}: by layer, layers without left out.
std::vector<std::vector<int>> read_lookup_heads(const JsonNode& node) {
  if (!node.is_object() || node.json().empty()) {
    node.expected("lists of heads by layer, such as {\"3\": [1, 5]}, or no such key");
  }
  std::vector<std::vector<int>> layers;
  for (const auto& [key, value] : node.json().items()) {
    size_t layer = 0;
    const char* const end = key.data() + key.size();
    const auto parsed = std::from_chars(key.data(), end, layer);
    SEER_CHECK(parsed.ec == std::errc() && parsed.ptr == end && key == std::to_string(layer) &&
                   layer < limits::kConfigCount,
               node.where(), " has the key ", shown(key), ", expected the number of a layer");
    const JsonNode list = node.at(key);
    if (list.array_size() == 0) list.expected("a list of heads; layers without are left out");
    if (layers.size() <= layer) layers.resize(layer + 1);
    for (size_t i = 0; i < list.array_size(); ++i) {
      layers[layer].push_back(static_cast<int>(list.at(i).integer(0, limits::kConfigCount)));
    }
  }
  return layers;
}

void check_lookup(const GateConfig& config, int head_dim) {
  bool some = false;
  for (size_t layer = 0; layer < config.lookup_heads.size(); ++layer) {
    const std::vector<int>& heads = config.lookup_heads[layer];
    some |= !heads.empty();
    for (size_t i = 1; i < heads.size(); ++i) {
      SEER_CHECK(heads[i - 1] < heads[i], "among the lookup heads of layer ", layer, ", ", heads[i],
                 " comes after ", heads[i - 1], ", expected each head once, in ascending order");
    }
  }
  const int rank = config.lookup_rank;
  if (!some && rank == 0) return;
  SEER_CHECK(rank != 0, "layers have lookup heads (", kLookupHeadsKey, "), but their rank ",
             kLookupRankKey, " is missing, expected 16, 32 or 64");
  SEER_CHECK(std::ranges::count(kLookupRanks, rank) == 1, "the rank of lookup heads is ", rank,
             ", expected 16, 32 or 64 (", kLookupRankKey, ")");
  SEER_CHECK(some, "lookup heads have the rank ", rank, ", but no layer has any (", kLookupHeadsKey,
             ")");
  SEER_CHECK(head_dim == 0 || rank <= head_dim, "the rank of lookup heads is ", rank,
             ", more than the model's head size ", head_dim);
}

}  // namespace

int GateConfig::q_pools() const {
  return parse_type(type).q;
}
int GateConfig::k_pools() const {
  return parse_type(type).k;
}
int GateConfig::count(int pools) {
  return std::popcount(static_cast<unsigned>(pools));
}

bool GateConfig::is_double(int head_dim) const {
  return force_double || (gate_dim != 0 && gate_dim != head_dim) || count(q_pools()) > 1;
}

void GateConfig::check(int head_dim) const {
  parse_type(type);
  SEER_CHECK(block_size >= kSmallestBlock && block_size <= kLargestBlock &&
                 block_size % kSmallestBlock == 0,
             "gate block size is ", block_size, ", expected ", kSmallestBlock, " to ",
             kLargestBlock, " by ", kSmallestBlock);
  const int size = gate_dim == 0 ? head_dim : gate_dim;
  SEER_CHECK(size >= 0 && size <= limits::kGateDim && size % 2 == 0, "gate size is ", size,
             ", expected an even number up to ", limits::kGateDim,
             " (0 in the file: the model's head size)");
  check_lookup(*this, head_dim);
}

void GateConfig::check(const ModelConfig& model) const {
  check(model.head_dim);
  for (size_t layer = 0; layer < lookup_heads.size(); ++layer) {
    const std::vector<int>& heads = lookup_heads[layer];
    if (heads.empty()) continue;
    SEER_CHECK(static_cast<int64_t>(layer) < model.num_layers, "layer ", layer,
               " has lookup heads, but the model has ", model.num_layers,
               " layers, counted from 0; are these gates of another model?");
    SEER_CHECK(heads.front() >= 0 && heads.back() < model.num_heads, "layer ", layer,
               " has the lookup head ", heads.front() < 0 ? heads.front() : heads.back(),
               ", but the model has ", model.num_heads,
               " heads a layer, counted from 0; are these gates of another model?");
  }
}

std::string gate_weight_name(int layer, const std::string& parameter) {
  return message("model.layers.", layer, ".self_attn.attn_gate.", parameter, ".weight");
}

std::filesystem::path gate_weights_path(const std::filesystem::path& folder) {
  return folder / "attn_gate_weights.safetensors";
}

GateConfig read_gate_config(const std::filesystem::path& folder) {
  std::error_code error;
  const std::string path = (folder / "config.json").string(),
                    download = hub_download(folder.string());
  SEER_CHECK(download.empty() || std::filesystem::exists(folder, error), folder.string(),
             " is no folder here; gates of this name on Hugging Face are got by ", download);
  SEER_CHECK(std::filesystem::exists(path, error), path,
             " is missing; a gate's folder holds config.json and attn_gate_weights.safetensors");
  const auto pickle = folder / "attn_gate_weights.pth";
  SEER_CHECK(std::filesystem::exists(gate_weights_path(folder), error) ||
                 !std::filesystem::exists(pickle, error),
             pickle.string(),
             " is a pickle, which is not read; convert it: python tools/convert_gates.py ",
             folder.string());
  const nlohmann::json json = read_json(path);
  const JsonNode fields(json, path);
  const char* decode_key = "seerattn_k_seq_pooling_type";
  SEER_CHECK(!fields.has(decode_key), path, ": \"", decode_key,
             "\" says that these gates are for decoding; expected gates for prefill");
  const char* type_key = "seerattn_gate_type";
  SEER_CHECK(fields.has(type_key), path, ": \"", type_key,
             "\" is missing; this is a model's config.json, not a gate's");
  GateConfig config;
  config.base_model = fields.string_or("base_model", "");
  config.fingerprint = fields.string_or(kFingerprintKey, "");
  config.type = fields.string_or(type_key, "");
  config.block_size =
      static_cast<int>(fields.integer_or("seerattn_gate_block_size", 1, limits::kConfigSize, 64));
  config.gate_dim =
      static_cast<int>(fields.integer_or("seerattn_gate_hidden_size", 0, limits::kConfigSize, 0));
  config.force_double = fields.boolean_or("seerattn_gate_force_double", false);
  config.lookup_rank =
      static_cast<int>(fields.integer_or(kLookupRankKey, 1, limits::kConfigSize, 0));
  if (const auto heads = fields.find(kLookupHeadsKey)) {
    config.lookup_heads = read_lookup_heads(*heads);
  }
  try {
    config.check(/*head_dim=*/0);
  } catch (const Error& wrong) {
    fail(path, ": ", wrong.what());
  }
  return config;
}

void write_gate_config(const std::filesystem::path& folder, const nlohmann::json& base_config,
                       const GateConfig& config) {
  nlohmann::json json = base_config;
  json["base_model"] = config.base_model;
  if (!config.fingerprint.empty()) json[kFingerprintKey] = config.fingerprint;
  json["seerattn_gate_type"] = config.type;
  json["seerattn_gate_block_size"] = config.block_size;
  json["seerattn_gate_hidden_size"] = config.gate_dim;
  json["seerattn_gate_force_double"] = config.force_double;
  for (size_t layer = 0; layer < config.lookup_heads.size(); ++layer) {
    if (config.lookup_heads[layer].empty()) continue;
    json[kLookupRankKey] = config.lookup_rank;
    json[kLookupHeadsKey][std::to_string(layer)] = config.lookup_heads[layer];
  }
  write_file_atomic(folder / "config.json", json_text(json, 2) + "\n");
}

}  // namespace seer::io
