#include "seer/models/weight_files.h"

#include <charconv>
#include <string_view>
#include <utility>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/json.h"
#include "seer/base/progress.h"
#include "seer/base/shown.h"

namespace seer::models {
namespace {

// What older files hold besides weights: angles of RoPE, masks.
bool is_buffer(std::string_view name) {
  for (const char* end :
       {"rotary_emb.inv_freq", "rotary_emb.cos_cached", "rotary_emb.sin_cached", "attn.masked_bias",
        "attention.masked_bias", "attn.bias", "attention.bias"}) {
    if (name.ends_with(end)) return true;
  }
  return false;
}

bool is_weight_of_layers(std::string_view name, int64_t num_layers) {
  constexpr std::string_view kLayers = "layers.";
  if (!name.ends_with(".weight") && !name.ends_with(".bias")) return false;
  if (name.starts_with("model.")) name.remove_prefix(6);
  if (!name.starts_with(kLayers)) return false;
  int64_t layer = 0;
  const auto [end, error] =
      std::from_chars(name.data() + kLayers.size(), name.data() + name.size(), layer);
  return error == std::errc() && layer < num_layers;
}

// Files of a decoder without a head leave out "model.".
std::vector<std::string> names_of(const std::string& name) {
  constexpr std::string_view kPrefix = "model.";
  if (!name.starts_with(kPrefix)) return {name};
  return {name, name.substr(kPrefix.size())};
}

}  // namespace

WeightFiles::WeightFiles(const std::filesystem::path& folder) : folder_(folder) {
  std::error_code error;
  const auto single = folder / "model.safetensors";
  const auto index = folder / "model.safetensors.index.json";
  if (std::filesystem::exists(single, error)) {
    described_by_ = single;
    for (const auto& [name, record] : open(single).tensors()) file_of_[name] = single;
    return;
  }
  SEER_CHECK(std::filesystem::exists(index, error), shown(folder.string()), " holds neither ",
             single.filename().string(), " nor ", index.filename().string(),
             "; weights must be in safetensors form");
  described_by_ = index;
  has_index_ = true;
  read_index();
}

void WeightFiles::read_index() {
  const auto json = read_json(described_by_);
  const JsonNode map = JsonNode(json, described_by_.string()).at("weight_map");
  if (!map.is_object()) map.expected("an object of tensor name: file name");
  for (const auto& item : map.json().items()) {
    const JsonNode entry = map.at(item.key());
    const std::filesystem::path path = entry.string();
    if (path.empty() || path != path.filename() || path == "..") {
      entry.expected("the name of a file in this folder");
    }
    file_of_[item.key()] = folder_ / path;
  }
}

const io::SafetensorsFile& WeightFiles::open(const std::filesystem::path& path) {
  auto& file = files_[path.string()];
  if (!file) file = std::make_unique<io::SafetensorsFile>(path);
  return *file;
}

void WeightFiles::open_all() {
  if (!has_index_ || std::exchange(are_all_open_, true)) return;
  std::error_code error;
  for (const auto& [name, path] : file_of_) {
    if (std::filesystem::exists(path, error)) open(path);
  }
}

WeightFiles::Place WeightFiles::find(const std::string& name) {
  std::error_code error;
  for (const std::string& stored : names_of(name)) {
    const auto at = file_of_.find(stored);
    if (at == file_of_.end() || !std::filesystem::exists(at->second, error)) continue;
    const auto& file = open(at->second);
    if (!file.contains(stored)) continue;
    used_.insert(stored);
    return {&file, stored};
  }
  return {};
}

WeightFiles::Place WeightFiles::need(const std::string& name) {
  if (const Place place = find(name); place.file) return place;
  // transformers reads all files, whatever the index says of each tensor.
  open_all();
  for (const std::string& stored : names_of(name)) {
    for (const auto& [path, file] : files_) {
      if (!file->contains(stored)) continue;
      used_.insert(stored);
      return {file.get(), stored};
    }
  }
  const std::string described_by = described_by_.string();
  const auto at = file_of_.find(name);
  SEER_CHECK(at != file_of_.end(), described_by, ": tensor ", name,
             " is missing; config.json asks for it");
  std::error_code error;
  fail(described_by, ": tensor ", name, " is said to be in ", shown(at->second.filename().string()),
       std::filesystem::exists(at->second, error)
           ? ", which does not hold it; do the files belong together?"
           : ", which is not there; get that file, too");
}

void WeightFiles::check_rest(int64_t num_layers) const {
  std::string first;
  size_t count = 0;
  for (const auto& [name, file] : file_of_) {
    if (used_.count(name) || is_buffer(name)) continue;
    SEER_CHECK(!is_weight_of_layers(name, num_layers), file.string(), ": tensor ", shown(name),
               " is not accounted for by config.json; do config.json and weights belong together?");
    if (count++ == 0) first = name;
  }
  if (count == 0) return;
  print_line(message("warning: ", described_by_.string(),
                     ": the model that config.json describes has no use for ", count,
                     " tensors, which are left out; the first is ", shown(first)));
}

}  // namespace seer::models
