#include "seer/models/loader.h"

#include <ATen/ops/cat.h>

#include <map>
#include <utility>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/json.h"
#include "seer/base/progress.h"
#include "seer/models/weight_files.h"

namespace seer::models {
namespace {

// Loads weights by name and shape, all to one type and device.
struct Loading {
  WeightFiles& files;
  at::ScalarType dtype;
  at::Device device;
  Fingerprint& fingerprint;

  // As the file has it.
  at::Tensor stored(const std::string& name, at::IntArrayRef shape) const {
    const WeightFiles::Place place = files.need(name);
    return mapped_tensor(*place.file, place.name, shape);
  }
  at::Tensor take(const std::string& name, const at::Tensor& stored) const {
    fingerprint.add(name, stored);
    return converted(stored);
  }
  at::Tensor converted(const at::Tensor& stored) const {
    return stored.to(device, dtype == at::ScalarType::Undefined ? stored.scalar_type() : dtype);
  }
  at::Tensor operator()(const std::string& name, at::IntArrayRef shape) const {
    return take(name, stored(name, shape));
  }
};

void load_layer(const Loading& load, const io::ModelConfig& config, const std::string& prefix,
                LayerWeights& weights) {
  struct Whole {
    at::Tensor tensor;
    int64_t taken = 0;  // rows
  };
  std::map<std::string_view, Whole> fused;
  for (const LayerWeight& w : layer_weights()) {
    if (!w.is_of(config)) continue;
    std::vector<int64_t> shape = w.shape(config);
    if (!config.fused_weights || w.fused.empty()) {
      weights.*w.field = load(prefix + w.name, shape);
      continue;
    }
    Whole& whole = fused[w.fused];
    const int64_t rows = shape[0];
    if (!whole.tensor.defined()) {
      shape[0] = 0;
      for (const LayerWeight& part : layer_weights()) {
        if (part.fused == w.fused) shape[0] += part.shape(config)[0];
      }
      whole.tensor = load(prefix + std::string(w.fused), shape);
    }
    weights.*w.field = whole.tensor.narrow(0, whole.taken, rows);
    whole.taken += rows;
  }
}

// As people call a model: models--org--name/snapshots/... of a Hub cache is org/name, any other folder
// is its path.
std::string name_of(const std::filesystem::path& folder) {
  const std::filesystem::path path = std::filesystem::weakly_canonical(folder);
  const std::string snapshots = path.parent_path().filename().string();
  const std::string cached = path.parent_path().parent_path().filename().string();
  const std::string mark = "models--";
  if (snapshots == "snapshots" && cached.starts_with(mark)) {
    std::string name = cached.substr(mark.size());
    if (const size_t at = name.find("--"); at != name.npos) name.replace(at, 2, "/");
    return name;
  }
  const std::string given = folder.lexically_normal().string();
  return given == "." || given.empty() ? path.string() : given;
}

// The embedding and the head. Where config.json ties them and both are stored, they are one if they are
// equal; else each stays what it is, as in transformers from version 5 on.
void load_ends(const Loading& load, const io::ModelConfig& config, ModelWeights& weights) {
  const int64_t shape[] = {config.vocab_size, config.hidden_size};
  if (!config.tied_embeddings) {
    weights.embedding = load(kEmbeddingName, shape);
    weights.head = load(kHeadName, shape);
    return;
  }
  const WeightFiles::Place head = load.files.find(kHeadName);
  if (head.file && !load.files.find(kEmbeddingName).file) {
    weights.embedding = weights.head = load.take(kEmbeddingName, load.stored(kHeadName, shape));
    return;
  }
  weights.embedding = weights.head = load(kEmbeddingName, shape);
  if (!head.file) return;
  const at::Tensor own = load.stored(kHeadName, shape);
  if (load.converted(own).to(weights.embedding.scalar_type()).equal(weights.embedding)) return;
  weights.head = load.take(kHeadName, own);
  print_line(message("warning: ", head.file->path().string(),
                     ": config.json ties the head to the embedding, but ", kHeadName,
                     " is stored and differs; the stored one is used. Set tie_word_embeddings to "
                     "false in config.json"));
}

}  // namespace

ModelWeights load_weights(const std::filesystem::path& folder, const io::ModelConfig& config,
                          at::ScalarType dtype, const at::Device& device,
                          const at::Device& layer_device, Fingerprint& fingerprint) {
  WeightFiles files(folder);
  const Loading load{files, dtype, device, fingerprint},
      of_layers{files, dtype, layer_device, fingerprint};
  ModelWeights weights;
  load_ends(load, config, weights);
  weights.layers.resize(static_cast<size_t>(config.num_layers));
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    load_layer(of_layers, config, layer_prefix(i), weights.layers[i]);
  }
  weights.norm = load(kNormName, {config.hidden_size});
  files.check_rest(config.num_layers);
  return weights;
}

void save_model(const std::filesystem::path& folder, const nlohmann::json& config,
                const ModelWeights& weights) {
  const auto config_path = folder / "config.json";
  const auto parsed = io::ModelConfig::from_json(config, config_path.string());
  ModelWeights to_write = weights;  // tensors are shared, not copied
  if (parsed.tied_embeddings) to_write.head = to_write.embedding;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  for (size_t i = 0; parsed.fused_weights && i < to_write.layers.size(); ++i) {
    std::map<std::string, std::vector<at::Tensor>> fused;
    for (const LayerWeight& w : layer_weights()) {
      if (w.fused.empty()) continue;
      auto& part = to_write.layers[i].*w.field;
      fused[layer_prefix(i) + std::string(w.fused)].push_back(std::exchange(part, {}));
    }
    for (const auto& [name, parts] : fused) tensors.emplace_back(name, at::cat(parts, 0));
  }
  for (const auto& [name, tensor] : named_weights(to_write)) tensors.emplace_back(name, *tensor);
  std::vector<io::NamedTensor> records;
  for (auto& [name, tensor] : tensors) {
    tensor = tensor.detach().cpu().contiguous();
    records.push_back(tensor_record(name, tensor));
  }
  std::filesystem::create_directories(folder);
  io::write_safetensors(folder / "model.safetensors", records, {{"format", "pt"}});
  write_file_atomic(config_path, json_text(config, 2) + "\n");
}

Decoder Decoder::load(const std::filesystem::path& folder, at::ScalarType dtype,
                      const at::Device& device, bool streamed) {
  io::ModelConfig config = io::ModelConfig::read(folder);
  Fingerprint fingerprint;
  ModelWeights weights = load_weights(folder, config, dtype, device,
                                      streamed ? at::Device(at::kCPU) : device, fingerprint);
  if (config.tied_embeddings && !weights.head.is_same(weights.embedding)) {
    config.tied_embeddings = false;
    config.raw["tie_word_embeddings"] = false;
  }
  Decoder model(std::move(config), std::move(weights));
  model.origin_ = {name_of(folder), fingerprint.text()};
  if (streamed) model.stream_layers();
  return model;
}

}  // namespace seer::models
