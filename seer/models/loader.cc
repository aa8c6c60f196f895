#include "seer/models/loader.h"

#include <ATen/ops/cat.h>

#include <map>
#include <memory>
#include <set>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/json.h"

namespace seer::models {
namespace {

// The safetensors files of a model folder.
class WeightFiles {
 public:
  explicit WeightFiles(const std::filesystem::path& folder) {
    std::error_code error;
    const auto single = folder / "model.safetensors";
    const auto index = folder / "model.safetensors.index.json";
    if (std::filesystem::exists(single, error)) {
      described_by_ = single.string();
      const auto& file = open(single);
      for (const auto& [name, record] : file.tensors()) file_of_[name] = &file;
      return;
    }
    SEER_CHECK(std::filesystem::exists(index, error), folder.string(), " holds neither ",
               single.filename().string(), " nor ", index.filename().string(),
               "; weights must be in safetensors form");
    read_index(folder, index.string());
  }

  const io::SafetensorsFile& holding(const std::string& name) {
    const auto at = file_of_.find(name);
    SEER_CHECK(at != file_of_.end(), described_by_, ": tensor ", name,
               " is missing; config.json asks for it");
    used_.insert(name);
    return *at->second;
  }

  // Weights that nothing asked for mean that config.json describes another model.
  void check_all_used(bool tied) const {
    for (const auto& [name, file] : file_of_) {
      const bool derived = name.find("rotary_emb.inv_freq") != std::string::npos;
      if (used_.count(name) || derived || (tied && name == "lm_head.weight")) continue;
      fail(file->path().string(), ": tensor ", name,
           " is not accounted for by config.json; do config.json and weights belong together?");
    }
  }

 private:
  const io::SafetensorsFile& open(const std::filesystem::path& path) {
    auto& file = files_[path.string()];
    if (!file) file = std::make_unique<io::SafetensorsFile>(path);
    return *file;
  }

  void read_index(const std::filesystem::path& folder, const std::string& index) {
    described_by_ = index;
    const auto json = read_json(index);
    SEER_CHECK(json.contains("weight_map") && json.at("weight_map").is_object(), index,
               ": \"weight_map\" is missing, expected an object of tensor name: file name");
    for (const auto& [name, file_name] : json.at("weight_map").items()) {
      SEER_CHECK(file_name.is_string(), index, ": the file of tensor ", name, " is not a name");
      const std::filesystem::path path = file_name.get<std::string>();
      SEER_CHECK(!path.empty() && path == path.filename() && path != "..", index, ": ",
                 path.string(), " is not the name of a file in this folder");
      const auto& file = open(folder / path);
      SEER_CHECK(file.contains(name), file.path().string(), ": tensor ", name,
                 " is missing, though ", index, " says that it is there");
      file_of_[name] = &file;
    }
  }

  std::string described_by_;
  std::map<std::string, std::unique_ptr<io::SafetensorsFile>> files_;
  std::map<std::string, const io::SafetensorsFile*> file_of_;
  std::set<std::string> used_;
};

// Loads weights by name and shape, all to one type and device.
struct Loading {
  WeightFiles& files;
  at::ScalarType dtype;
  at::Device device;
  Fingerprint& fingerprint;

  at::Tensor operator()(const std::string& name, at::IntArrayRef shape) const {
    const at::Tensor stored = mapped_tensor(files.holding(name), name, shape);
    fingerprint.add(name, stored);
    return stored.to(device, dtype);
  }
  at::Tensor if_any(bool there, const std::string& name, at::IntArrayRef shape) const {
    return there ? (*this)(name, shape) : at::Tensor();
  }
};

void load_attention(const Loading& load, const io::ModelConfig& config, const std::string& prefix,
                    LayerWeights& w) {
  const int64_t hidden = config.hidden_size, q_out = int64_t{config.num_heads} * config.head_dim,
                kv_out = int64_t{config.num_kv_heads} * config.head_dim;
  if (config.fused_weights) {
    const at::Tensor qkv = load(prefix + "qkv_proj.weight", {q_out + 2 * kv_out, hidden});
    w.q = qkv.narrow(0, 0, q_out);
    w.k = qkv.narrow(0, q_out, kv_out);
    w.v = qkv.narrow(0, q_out + kv_out, kv_out);
  } else {
    w.q = load(prefix + "q_proj.weight", {q_out, hidden});
    w.k = load(prefix + "k_proj.weight", {kv_out, hidden});
    w.v = load(prefix + "v_proj.weight", {kv_out, hidden});
  }
  w.o = load(prefix + "o_proj.weight", {hidden, q_out});
  w.q_bias = load.if_any(config.qkv_bias, prefix + "q_proj.bias", {q_out});
  w.k_bias = load.if_any(config.qkv_bias, prefix + "k_proj.bias", {kv_out});
  w.v_bias = load.if_any(config.qkv_bias, prefix + "v_proj.bias", {kv_out});
  w.o_bias = load.if_any(config.out_bias, prefix + "o_proj.bias", {hidden});
  w.q_norm = load.if_any(config.qk_norm, prefix + "q_norm.weight", {config.head_dim});
  w.k_norm = load.if_any(config.qk_norm, prefix + "k_norm.weight", {config.head_dim});
}

void load_mlp(const Loading& load, const io::ModelConfig& config, const std::string& prefix,
              LayerWeights& w) {
  const int64_t hidden = config.hidden_size, inner = config.intermediate_size;
  if (config.fused_weights) {
    const at::Tensor both = load(prefix + "gate_up_proj.weight", {2 * inner, hidden});
    w.gate = both.narrow(0, 0, inner);
    w.up = both.narrow(0, inner, inner);
  } else {
    w.gate = load(prefix + "gate_proj.weight", {inner, hidden});
    w.up = load(prefix + "up_proj.weight", {inner, hidden});
  }
  w.down = load(prefix + "down_proj.weight", {hidden, inner});
  w.gate_bias = load.if_any(config.mlp_bias, prefix + "gate_proj.bias", {inner});
  w.up_bias = load.if_any(config.mlp_bias, prefix + "up_proj.bias", {inner});
  w.down_bias = load.if_any(config.mlp_bias, prefix + "down_proj.bias", {hidden});
}

// Fused families: q, k, v and gate, up as one tensor each.
void fuse(LayerWeights& w, const std::string& layer,
          std::vector<std::pair<std::string, at::Tensor>>& out) {
  out.emplace_back(layer + "self_attn.qkv_proj.weight", at::cat({w.q, w.k, w.v}, 0));
  out.emplace_back(layer + "mlp.gate_up_proj.weight", at::cat({w.gate, w.up}, 0));
  w.q = w.k = w.v = w.gate = w.up = at::Tensor();
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

}  // namespace

ModelWeights load_weights(const std::filesystem::path& folder, const io::ModelConfig& config,
                          at::ScalarType dtype, const at::Device& device,
                          const at::Device& layer_device, Fingerprint& fingerprint) {
  WeightFiles files(folder);
  const Loading load{files, dtype, device, fingerprint},
      load_layer{files, dtype, layer_device, fingerprint};
  const int64_t hidden = config.hidden_size;
  ModelWeights weights;
  weights.embedding = load("model.embed_tokens.weight", {config.vocab_size, hidden});
  weights.layers.resize(static_cast<size_t>(config.num_layers));
  for (size_t i = 0; i < weights.layers.size(); ++i) {
    const std::string layer = "model.layers." + std::to_string(i) + ".";
    LayerWeights& w = weights.layers[i];
    w.input_norm = load_layer(layer + "input_layernorm.weight", {hidden});
    load_attention(load_layer, config, layer + "self_attn.", w);
    w.post_norm = load_layer(layer + "post_attention_layernorm.weight", {hidden});
    load_mlp(load_layer, config, layer + "mlp.", w);
  }
  weights.norm = load("model.norm.weight", {hidden});
  weights.head = config.tied_embeddings ? weights.embedding
                                        : load("lm_head.weight", {config.vocab_size, hidden});
  files.check_all_used(config.tied_embeddings);
  return weights;
}

void save_model(const std::filesystem::path& folder, const nlohmann::json& config,
                const ModelWeights& weights) {
  const auto config_path = folder / "config.json";
  const auto parsed = io::ModelConfig::from_json(config, config_path.string());
  ModelWeights to_write = weights;  // tensors are shared, not copied
  if (parsed.tied_embeddings) to_write.head = to_write.embedding;
  std::vector<std::pair<std::string, at::Tensor>> tensors;
  if (parsed.fused_weights) {
    for (size_t i = 0; i < to_write.layers.size(); ++i) {
      fuse(to_write.layers[i], "model.layers." + std::to_string(i) + ".", tensors);
    }
  }
  for (const auto& [name, tensor] : named_weights(to_write)) tensors.emplace_back(name, *tensor);
  std::vector<io::NamedTensor> records;
  for (auto& [name, tensor] : tensors) {
    tensor = tensor.detach().cpu().contiguous();
    records.push_back(tensor_record(name, tensor));
  }
  std::filesystem::create_directories(folder);
  io::write_safetensors(folder / "model.safetensors", records, {{"format", "pt"}});
  write_file_atomic(config_path, config.dump(2) + "\n");
}

Decoder Decoder::load(const std::filesystem::path& folder, at::ScalarType dtype,
                      const at::Device& device, bool streamed) {
  io::ModelConfig config = io::ModelConfig::read(folder);
  Fingerprint fingerprint;
  ModelWeights weights = load_weights(folder, config, dtype, device,
                                      streamed ? at::Device(at::kCPU) : device, fingerprint);
  Decoder model(std::move(config), std::move(weights));
  model.origin_ = {name_of(folder), fingerprint.text()};
  if (streamed) model.stream_layers();
  return model;
}

}  // namespace seer::models
