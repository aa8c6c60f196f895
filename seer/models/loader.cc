#include "seer/models/loader.h"

#include <ATen/ops/cat.h>

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
    return stored.to(device, dtype);
  }
  at::Tensor operator()(const std::string& name, at::IntArrayRef shape) const {
    return take(name, stored(name, shape));
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

constexpr const char* kEmbedding = "model.embed_tokens.weight";
constexpr const char* kHead = "lm_head.weight";

// The embedding and the head. Where config.json ties them and both are stored, they are one if they are
// equal; else each stays what it is, as in transformers from version 5 on.
void load_ends(const Loading& load, const io::ModelConfig& config, ModelWeights& weights) {
  const int64_t shape[] = {config.vocab_size, config.hidden_size};
  if (!config.tied_embeddings) {
    weights.embedding = load(kEmbedding, shape);
    weights.head = load(kHead, shape);
    return;
  }
  const WeightFiles::Place head = load.files.find(kHead);
  if (head.file && !load.files.find(kEmbedding).file) {
    weights.embedding = weights.head = load.take(kEmbedding, load.stored(kHead, shape));
    return;
  }
  weights.embedding = weights.head = load(kEmbedding, shape);
  if (!head.file) return;
  const at::Tensor own = load.stored(kHead, shape);
  if (own.to(load.device, load.dtype).equal(weights.embedding)) return;
  weights.head = load.take(kHead, own);
  print_line(message("warning: ", head.file->path().string(),
                     ": config.json ties the head to the embedding, but ", kHead,
                     " is stored and differs; the stored one is used. Set tie_word_embeddings to "
                     "false in config.json"));
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
  load_ends(load, config, weights);
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
