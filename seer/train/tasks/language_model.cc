#include "seer/train/tasks/language_model.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_copy.h>

#include <iterator>

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
    : masters_(untied(std::move(weights), config)), decoder_(config, computing(dtype, device)) {
  if (config.tied_embeddings) masters_.head = masters_.embedding;
}

// Moves the masters to the device; the weights of the decoder, which are the masters or their copies.
models::ModelWeights LanguageModel::computing(at::ScalarType dtype, const at::Device& device) {
  models::ModelWeights used = masters_;
  const bool is_tied = !masters_.head.defined();
  const auto originals = models::named_weights(masters_), weights = models::named_weights(used);
  for (size_t i = 0; i < originals.size(); ++i) {
    at::Tensor& original = *originals[i].second;
    original = original.to(device).requires_grad_();
    *weights[i].second = original;
    if (dtype == at::kFloat) continue;
    *weights[i].second = original.detach().to(dtype).requires_grad_();
    copies_.push_back(*weights[i].second);
    originals_.push_back(original);
  }
  if (is_tied) used.head = used.embedding;
  return used;
}

std::vector<std::pair<std::string, at::Tensor>> LanguageModel::parameters() const {
  std::vector<std::pair<std::string, at::Tensor>> all;
  models::ModelWeights weights = masters_;
  for (const auto& [name, weight] : models::named_weights(weights)) all.emplace_back(name, *weight);
  return all;
}

void LanguageModel::refresh() {
  if (copies_.empty()) return;
  const at::NoGradGuard no_grad;
  at::_foreach_copy_(copies_, originals_);
}

at::Tensor LanguageModel::loss(const at::Tensor& ids, const models::Attention& attention) const {
  const TokenBatch batch = batch_of_windows(ids, decoder_.device());
  return chunked_cross_entropy(decoder_.hidden(batch.ids, batch.sequences, attention),
                               decoder_.weights().head, batch.targets);
}

void LanguageModel::collect() {
  std::vector<at::Tensor> from, to;
  for (size_t i = 0; i < copies_.size(); ++i) {
    if (!copies_[i].grad().defined()) continue;
    from.push_back(copies_[i].grad());
    to.push_back(originals_[i].mutable_grad());
    copies_[i].mutable_grad() = at::Tensor();
  }
  if (!from.empty()) at::_foreach_add_(to, from);
}

void LanguageModel::backward(const at::Tensor& loss) {
  loss.backward();
  collect();
}

at::Tensor LanguageModel::checkpointed(
    const TokenBatch& batch, double share, const LayerRuns& runs,
    const std::function<void(const at::Tensor& master)>& complete,
    const std::function<void(int layer)>& layer_done,
    const std::function<void(int64_t done, int64_t all)>& passed) {
  const int layers = config().num_layers;
  const auto part_done = [&](int part) {
    collect();
    if (layer_done && part >= 0 && part < layers) layer_done(part);
    if (!complete) return;
    if (part < 0) return complete(masters_.embedding);
    if (part < layers) {
      for (const models::LayerWeight& w : models::layer_weights()) {
        const at::Tensor& master = masters_.layers[static_cast<size_t>(part)].*w.field;
        if (master.defined()) complete(master);
      }
      return;
    }
    complete(masters_.norm);
    if (!config().tied_embeddings) complete(masters_.head);
  };
  return checkpointed_backward(decoder_, batch, share, runs, {part_done, passed});
}

double LanguageModel::copy_bytes() const {
  double bytes = 0;
  for (const at::Tensor& copy : copies_) bytes += 2 * static_cast<double>(copy.nbytes());
  return bytes;
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
  models::ModelWeights narrow = untied(masters_, config());
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
