#include "seer/train/pretrain.h"

#include <ATen/Context.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/io/context.h"
#include "seer/models/attention.h"
#include "seer/models/loader.h"
#include "seer/train/cross_entropy.h"
#include "seer/train/new_model.h"
#include "seer/train/run_folder.h"
#include "seer/train/synthetic.h"
#include "seer/train/validation.h"

namespace seer::train {
namespace {

using nlohmann::json;

constexpr int64_t kCpuMicroBatch = 4096;  // tokens

// Index of a window among all of a run: steps do not share any, whatever their lengths.
uint64_t window_index(int64_t step, int64_t i) {
  return (static_cast<uint64_t>(step) << 24) | static_cast<uint64_t>(i);
}

// Which of torch's attention kernels is asked first.
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

// Files of the tokenizer that go with a model.
std::vector<std::string> tokenizer_files(const std::filesystem::path& folder) {
  std::vector<std::string> names(std::begin(kTokenizerFiles), std::end(kTokenizerFiles));
  names.emplace_back("chat_template.jinja");
  std::erase_if(names,
                [&](const std::string& name) { return !std::filesystem::exists(folder / name); });
  return names;
}

std::vector<std::string> result_files(const PretrainSettings& settings) {
  std::vector<std::string> names = tokenizer_files(settings.tokenizer);
  names.insert(names.end(), {"config.json", "model.safetensors"});
  return names;
}

class Pretraining : public Task {
 public:
  Pretraining(const PretrainSettings& settings, const io::Tokenizer& tokenizer)
      : settings_(settings),
        config_json_(new_model_config(settings, tokenizer, settings.stages.back().length)),
        config_(io::ModelConfig::from_json(config_json_, "the new model's config.json")),
        train_(open_mixture(settings.data.train, settings.data, tokenizer, settings.tokenizer,
                            config_.vocab_size)),
        windows_(train_, settings.seed),
        synthetic_(settings.data.synthetic_share, settings.seed, tokenizer, config_.vocab_size) {
    if (!settings.data.valid.empty()) {
      valid_ = open_mixture(settings.data.valid, settings.data, tokenizer, settings.tokenizer,
                            config_.vocab_size);
    }
    check_lengths();
    make_weights();
  }

  std::string name() const override { return "pretrain"; }

  std::vector<ParameterGroup> groups() override {
    ParameterGroup matrices{
        "matrices", {}, settings_.muon, settings_.matrix_learning_rate, settings_.schedule};
    ParameterGroup others{
        "others", {}, settings_.adamw, settings_.other_learning_rate, settings_.schedule};
    for (const auto& [name, weight] : models::named_weights(masters_)) {
      const bool is_matrix = weight->dim() == 2 && name.find(".layers.") != std::string::npos;
      (is_matrix ? matrices : others).parameters.emplace_back(name, *weight);
    }
    return {matrices, others};
  }

  json settings() const override {
    auto stages = json::array();
    for (const auto& stage : settings_.stages) stages.push_back({stage.until, stage.length});
    const auto& [momentum, iterations, muon_decay] = settings_.muon;
    const auto& [beta1, beta2, eps, decay] = settings_.adamw;
    const Schedule& schedule = settings_.schedule;
    return {{"model", config_json_},
            {"data", train_.identity()},
            {"valid", valid_.identity()},
            {"synthetic_share", settings_.data.synthetic_share},
            {"stages", stages},
            {"tokens_per_step", settings_.tokens_per_step},
            {"micro_batch_tokens", micro_batch_tokens()},
            {"valid_tokens", settings_.valid_tokens},
            {"matrix_learning_rate", settings_.matrix_learning_rate},
            {"other_learning_rate", settings_.other_learning_rate},
            {"muon", {momentum, iterations, muon_decay}},
            {"adamw", {beta1, beta2, eps, decay}},
            {"schedule",
             {static_cast<int>(schedule.form), warmup_steps(schedule, settings_.loop.steps),
              schedule.constant_share, schedule.floor}},
            {"seed", settings_.seed},
            {"device", settings_.device.is_cuda() ? "cuda" : "cpu"},
            {"dtype", c10::toString(dtype())},
            {"deterministic", settings_.deterministic}};
  }

  std::vector<std::string> files() const override { return result_files(settings_); }

  int64_t micro_batches(int64_t step) const override {
    const int64_t each = windows_at_once(step);
    return (windows_of(step) + each - 1) / each;
  }
  int64_t tokens(int64_t) const override { return settings_.tokens_per_step; }
  Plan plan() const override {
    Plan plan;
    const char* separator = "windows of ";
    for (const auto& stage : settings_.stages) {
      plan.step += message(separator, stage.length);
      separator = ", then ";
    }
    plan.step += " tokens";
    // Masters with gradients, one moment of Muon or two of AdamW; copies with gradients.
    models::ModelWeights weights = masters_;
    for (const auto& [name, weight] : models::named_weights(weights)) {
      const bool is_matrix = weight->dim() == 2 && name.find(".layers.") != std::string::npos;
      plan.trained += (is_matrix ? 3 : 4) * static_cast<double>(weight->nbytes());
    }
    for (const at::Tensor& copy : copies_) plan.trained += 2 * static_cast<double>(copy.nbytes());
    // What a layer keeps for its gradient.
    const double q = double(config_.num_heads) * config_.head_dim,
                 kv = double(config_.num_kv_heads) * config_.head_dim;
    int64_t tokens = 0;
    for (const auto& [until, length] : settings_.stages) {
      tokens = std::max(tokens, std::max(length, micro_batch_tokens() / length * length));
    }
    plan.activations =
        double(tokens) * static_cast<double>(c10::elementSize(dtype())) * config_.num_layers *
        (6.0 * config_.hidden_size + 4 * q + 4 * kv + 4.0 * config_.intermediate_size);
    for (const auto& stage : settings_.stages) {
      if (plan.warning.empty()) plan.warning = io::context_warning(config_, stage.length);
    }
    return plan;
  }
  void begin_step(int64_t step) override {
    length_ = length_of(step);
    refresh_weights();
  }

  at::Tensor backward(int64_t step, int64_t micro_batch, const Complete&) override {
    const int64_t each = windows_at_once(step), first = micro_batch * each;
    const int64_t count = std::min(each, windows_of(step) - first);
    const at::Tensor batch = at::empty({count, length_ + 1}, at::kLong);
    std::vector<int32_t> window(static_cast<size_t>(length_ + 1));
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t index = window_index(step, first + i);
      windows_.window(index, length_ + 1, window.data());
      synthetic_.apply(index, length_ + 1, window.data());
      std::copy(window.begin(), window.end(),
                batch.mutable_data_ptr<int64_t>() + i * (length_ + 1));
    }
    const double share = static_cast<double>(count) / static_cast<double>(windows_of(step));
    const at::Tensor loss = loss_of(batch).mul(share);
    loss.backward();
    if (has_copies()) {
      std::vector<at::Tensor> from, to;
      for (size_t i = 0; i < copies_.size(); ++i) {
        from.push_back(copies_[i].grad());
        to.push_back(originals_[i].grad());
        copies_[i].mutable_grad() = at::Tensor();
      }
      at::_foreach_add_(to, from);
    }
    return loss.detach().view(1);
  }

  std::map<std::string, double> validate(Ranks& ranks) override {
    refresh_weights();
    const auto measure = [&](const at::Tensor& ids) {
      return loss_of(ids.view({1, -1})).to(at::kDouble).view(1);
    };
    return by_name(mean_over_windows({valid_, length_ + 1, settings_.valid_tokens / length_}, 1,
                                     settings_.device, measure, ranks),
                   {""});
  }

  int64_t skipped_documents() const {
    return train_.skipped_documents() + valid_.skipped_documents();
  }

  // The trained model in `folder`, as Hugging Face has it.
  void save(const std::filesystem::path& folder) {
    // config.json comes last: a folder that has one is complete.
    for (const std::string& name : tokenizer_files(settings_.tokenizer)) {
      write_file_atomic(folder / name, read_file(settings_.tokenizer / name));
    }
    models::ModelWeights narrow = masters_;
    const bool is_tied = config_.tied_embeddings;
    if (is_tied) narrow.head = at::Tensor();
    for (auto& [name, weight] : models::named_weights(narrow)) {
      *weight = weight->detach().to(at::kBFloat16);
    }
    if (is_tied) narrow.head = narrow.embedding;
    models::save_model(folder, config_json_, narrow);
  }

 private:
  bool has_copies() const { return !copies_.empty(); }
  at::ScalarType dtype() const {
    if (settings_.dtype != at::ScalarType::Undefined) return settings_.dtype;
    return settings_.device.is_cuda() ? at::kBFloat16 : at::kFloat;
  }

  int64_t length_of(int64_t step) const {
    const auto steps = static_cast<double>(settings_.loop.steps);
    for (const auto& stage : settings_.stages) {
      if (static_cast<double>(step) < stage.until * steps) return stage.length;
    }
    return settings_.stages.back().length;
  }
  int64_t windows_of(int64_t step) const { return settings_.tokens_per_step / length_of(step); }
  int64_t micro_batch_tokens() const {
    if (settings_.micro_batch_tokens > 0) return settings_.micro_batch_tokens;
    return settings_.device.is_cuda() ? settings_.tokens_per_step : kCpuMicroBatch;
  }
  int64_t windows_at_once(int64_t step) const {
    return std::max<int64_t>(1, micro_batch_tokens() / length_of(step));
  }

  void check_lengths() const {
    for (const auto& [until, length] : settings_.stages) {
      for (const auto& stream : train_.streams) {
        SEER_CHECK(stream.size() > length, stream.file().source(), " has ", stream.size(),
                   " tokens, fewer than one window of ", length + 1,
                   ": give more text or a smaller length");
      }
      check_held_out({valid_, length + 1, 1});
    }
  }

  // f32 masters on the device, and copies of them where the model computes in another type.
  void make_weights() {
    masters_ = new_weights(config_, settings_.seed);
    models::ModelWeights used = masters_;
    if (config_.tied_embeddings) masters_.head = used.head = at::Tensor();
    const auto originals = models::named_weights(masters_), computing = models::named_weights(used);
    for (size_t i = 0; i < originals.size(); ++i) {
      at::Tensor& original = *originals[i].second;
      original = original.to(settings_.device).requires_grad_();
      *computing[i].second = original;
      if (dtype() == at::kFloat) continue;
      *computing[i].second = original.detach().to(dtype()).requires_grad_();
      copies_.push_back(*computing[i].second);
      originals_.push_back(original);
    }
    if (config_.tied_embeddings) masters_.head = masters_.embedding, used.head = used.embedding;
    model_.emplace(config_, used);
  }

  void refresh_weights() {
    if (!has_copies()) return;
    const at::NoGradGuard no_grad;
    at::_foreach_copy_(copies_, originals_);
  }

  // batch [windows, length + 1] on the CPU -> mean negative log-likelihood [].
  at::Tensor loss_of(const at::Tensor& batch) {
    const at::Tensor ids = batch.to(settings_.device);
    const int64_t length = ids.size(1) - 1;
    models::Sequences sequences;
    sequences.q_lens.assign(static_cast<size_t>(ids.size(0)), length);
    sequences.k_lens = sequences.q_lens;
    const at::Tensor hidden =
        model_->hidden(ids.narrow(1, 0, length).reshape(-1), sequences, models::dense_attention);
    return chunked_cross_entropy(hidden, model_->weights().head,
                                 ids.narrow(1, 1, length).reshape(-1));
  }

  const PretrainSettings& settings_;
  json config_json_;
  io::ModelConfig config_;
  Mixture train_, valid_;
  RandomWindows windows_;
  SyntheticShare synthetic_;
  models::ModelWeights masters_;
  std::vector<at::Tensor> originals_, copies_;  // f32 masters and their copies in dtype()
  std::optional<models::Decoder> model_;
  int64_t length_ = 0;  // tokens of a window in the current step
};

}  // namespace

RunResult pretrain(const PretrainSettings& settings) {
  check(settings);
  check_run_folder(settings.loop.out, "pretrain", result_files(settings));
  const io::Tokenizer tokenizer = io::Tokenizer::load(settings.tokenizer);
  if (settings.device.is_cuda()) order_attention_kernels(settings.deterministic);
  Pretraining task(settings, tokenizer);
  RunResult result = run(task, settings.loop);
  result.skipped_documents = task.skipped_documents();
  task.save(settings.loop.out);
  // It can be read as it was written.
  models::Decoder::load(settings.loop.out, at::kBFloat16, at::kCPU);
  check_run_is_there(settings.loop.out, "the model is");
  return result;
}

}  // namespace seer::train
