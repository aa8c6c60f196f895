#include "seer/train/tasks/language_model.h"

#include <ATen/Context.h>

#include <iterator>
#include <utility>

#include "seer/base/file.h"
#include "seer/models/loader.h"
#include "seer/train/data/token_file.h"
#include "seer/train/tasks/cross_entropy.h"

namespace seer::train {
namespace {

// Files of the tokenizer that go with a model.
std::vector<std::string> tokenizer_files(const std::filesystem::path& folder) {
  std::vector<std::string> names(std::begin(kTokenizerFiles), std::end(kTokenizerFiles));
  names.emplace_back("chat_template.jinja");
  std::erase_if(names,
                [&](const std::string& name) { return !std::filesystem::exists(folder / name); });
  return names;
}

// A tied head is listed once: as the embedding.
models::ModelWeights untied(models::ModelWeights weights, const io::ModelConfig& config) {
  if (config.tied_embeddings) weights.head = at::Tensor();
  return weights;
}

}  // namespace

LanguageModel::LanguageModel(const io::ModelConfig& config, models::ModelWeights weights,
                             at::ScalarType dtype, const at::Device& device)
    : decoder_(config, leaves(std::move(weights), config, dtype, device)) {}

models::ModelWeights LanguageModel::leaves(models::ModelWeights weights,
                                           const io::ModelConfig& config, at::ScalarType dtype,
                                           const at::Device& device) {
  weights = untied(std::move(weights), config);
  for (const auto& [name, weight] : models::named_weights(weights)) {
    const at::Tensor first = *weight;
    // Memory of its own: a file's mapped pages are read-only.
    *weight = first.to(device, dtype, /*non_blocking=*/false, /*copy=*/true).requires_grad_();
    const bool is_exact = dtype == at::kFloat || first.scalar_type() == dtype;
    initial_.push_back(is_exact ? at::Tensor() : first);
  }
  if (config.tied_embeddings) weights.head = weights.embedding;
  return weights;
}

std::vector<std::pair<std::string, at::Tensor>> LanguageModel::weights() const {
  std::vector<std::pair<std::string, at::Tensor>> all;
  models::ModelWeights weights = untied(decoder_.weights(), config());
  for (const auto& [name, weight] : models::named_weights(weights)) all.emplace_back(name, *weight);
  return all;
}

std::vector<Parameter> LanguageModel::parameters() {
  std::vector<Parameter> all;
  for (const auto& [name, leaf] : weights()) {
    all.push_back({name, leaf, std::exchange(initial_[all.size()], {})});
  }
  return all;
}

bool LanguageModel::is_matrix(const std::string& name, const at::Tensor& weight) {
  return weight.dim() == 2 && name.find(".layers.") != std::string::npos;
}

std::vector<ParameterGroup> LanguageModel::muon_groups(const MatrixRates& rates,
                                                       const Schedule& schedule) {
  ParameterGroup matrices{"matrices", {}, rates.muon, rates.matrices, schedule},
      others{"others", {}, rates.adamw, rates.others, schedule};
  for (Parameter& p : parameters()) {
    (is_matrix(p.name, p.leaf) ? matrices : others).parameters.push_back(std::move(p));
  }
  return {matrices, others};
}

at::Tensor LanguageModel::loss(const at::Tensor& ids, const models::Attention& attention) const {
  const TokenBatch batch = batch_of_windows(ids, decoder_.device());
  return chunked_cross_entropy(decoder_.hidden(batch.ids, batch.sequences, attention),
                               decoder_.weights().head, batch.targets);
}

std::vector<at::Tensor> LanguageModel::part(int part) const {
  const models::ModelWeights& weights = decoder_.weights();
  if (part < 0) return {weights.embedding};
  if (part == config().num_layers) {
    if (config().tied_embeddings) return {weights.norm};
    return {weights.norm, weights.head};
  }
  std::vector<at::Tensor> all;
  for (const models::LayerWeight& w : models::layer_weights()) {
    const at::Tensor& weight = weights.layers[static_cast<size_t>(part)].*w.field;
    if (weight.defined()) all.push_back(weight);
  }
  return all;
}

double LanguageModel::activation_bytes(int64_t tokens) const {
  const io::ModelConfig& model = config();
  const double q = double(model.num_heads) * model.head_dim,
               kv = double(model.num_kv_heads) * model.head_dim;
  return double(tokens) * static_cast<double>(c10::elementSize(decoder_.dtype())) *
         model.num_layers *
         (6.0 * model.hidden_size + 4 * q + 4 * kv + 4.0 * model.intermediate_size);
}

std::vector<std::string> LanguageModel::files(const std::filesystem::path& tokenizer) {
  std::vector<std::string> names = tokenizer_files(tokenizer);
  names.insert(names.end(), {"config.json", "model.safetensors"});
  return names;
}

void LanguageModel::save(const std::filesystem::path& folder, const nlohmann::json& config_json,
                         const std::filesystem::path& tokenizer) const {
  for (const std::string& name : tokenizer_files(tokenizer)) {
    write_file_atomic(folder / name, read_file(tokenizer / name));
  }
  models::ModelWeights narrow = untied(decoder_.weights(), config());
  for (auto& [name, weight] : models::named_weights(narrow)) {
    *weight = weight->detach().to(at::kBFloat16);
  }
  if (config().tied_embeddings) narrow.head = narrow.embedding;
  models::save_model(folder, config_json, narrow);
  models::Decoder::load(folder, at::kBFloat16, at::kCPU);
}

void order_attention_kernels(bool deterministic) {
  const auto id = [](at::SDPBackend backend) { return static_cast<int64_t>(backend); };
  const int64_t cudnn = id(at::SDPBackend::cudnn_attention),
                flash = id(at::SDPBackend::flash_attention),
                efficient = id(at::SDPBackend::efficient_attention),
                math = id(at::SDPBackend::math), other = id(at::SDPBackend::overrideable);
  // At head size 64 cuDNN takes 0.63 of FlashAttention-2's time, forward and backward (H200, torch
  // 2.11, 8k tokens); only the latter has a deterministic backward.
  at::globalContext().setDeterministicAlgorithms(deterministic, /*warn_only=*/true);
  if (deterministic) {
    at::globalContext().setSDPPriorityOrder({flash, math, efficient, cudnn, other});
  } else {
    at::globalContext().setSDPPriorityOrder({cudnn, flash, efficient, math, other});
  }
}

}  // namespace seer::train
