#include "seer/train/tasks/pretrain.h"

#include <algorithm>

#include "seer/base/error.h"
#include "seer/base/interrupt.h"
#include "seer/base/shown.h"
#include "seer/io/context.h"
#include "seer/train/data/synthetic.h"
#include "seer/train/loop/run_folder.h"
#include "seer/train/loop/validation.h"
#include "seer/train/tasks/language_model.h"
#include "seer/train/tasks/new_model.h"

namespace seer::train {
namespace {

using nlohmann::json;

constexpr int64_t kCpuMicroBatch = 4096;  // tokens

// Index of a window among all of a run: steps do not share any, whatever their lengths.
uint64_t window_index(int64_t step, int64_t i) {
  return (static_cast<uint64_t>(step) << 24) | static_cast<uint64_t>(i);
}

class Pretraining : public Task {
 public:
  Pretraining(const PretrainSettings& settings, const io::Tokenizer& tokenizer)
      : settings_(settings),
        stages_(stages_of(settings)),
        config_json_(new_model_config(settings, tokenizer, stages_.back().length)),
        config_(io::ModelConfig::from_json(config_json_, "the new model's config.json")),
        train_(open_mixture(settings.data.train, settings.data.weights, settings.data, tokenizer,
                            settings.tokenizer, config_.vocab_size)),
        windows_(train_, settings.seed),
        synthetic_(settings.data.synthetic_share, settings.seed, tokenizer, config_.vocab_size),
        model_(config_, new_weights(config_, settings.seed), dtype(), settings.device) {
    if (!settings.data.valid.empty()) {
      valid_ = open_mixture(settings.data.valid, {}, settings.data, tokenizer, settings.tokenizer,
                            config_.vocab_size);
    }
    check_lengths();
  }

  std::string name() const override { return "pretrain"; }

  std::vector<ParameterGroup> groups() override {
    return model_.muon_groups({settings_.muon, settings_.adamw, settings_.matrix_learning_rate,
                               settings_.other_learning_rate},
                              settings_.schedule);
  }

  json settings() const override {
    auto stages = json::array();
    for (const auto& stage : stages_) stages.push_back({stage.until, stage.length});
    const auto& [momentum, iterations, muon_decay] = settings_.muon;
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
            {"adamw", as_json(settings_.adamw)},
            {"schedule", as_json(settings_.schedule, settings_.loop.steps)},
            {"seed", settings_.seed},
            {"device", settings_.device.is_cuda() ? "cuda" : "cpu"},
            {"dtype", c10::toString(dtype())},
            {"deterministic", settings_.deterministic}};
  }

  std::vector<std::string> files() const override {
    return LanguageModel::files(settings_.tokenizer);
  }

  int64_t micro_batches(int64_t step) const override {
    const int64_t each = windows_at_once(step);
    return (windows_of(step) + each - 1) / each;
  }
  int64_t tokens(int64_t) const override { return settings_.tokens_per_step; }
  Plan plan() const override {
    Plan plan;
    const char* separator = "windows of ";
    for (const auto& stage : stages_) {
      plan.step += message(separator, stage.length);
      separator = ", then ";
    }
    plan.step += " tokens";
    // What computes, f32 gradients (beside narrow ones); the share of this process of one moment of Muon
    // or two of AdamW, and of f32 masters.
    for (const auto& [name, leaf] : model_.weights()) {
      const bool is_narrow = leaf.scalar_type() != at::kFloat;
      const double states =
          4 * ((LanguageModel::is_matrix(name, leaf) ? 1 : 2) + (is_narrow ? 1 : 0));
      plan.trained += static_cast<double>(leaf.nbytes()) * (is_narrow ? 2 : 1) +
                      static_cast<double>(leaf.numel()) * (4 + states / num_ranks());
    }
    int64_t tokens = 0;
    for (const auto& [until, length] : stages_) {
      tokens = std::max(tokens, std::max(length, tokens_at_once() / length * length));
    }
    plan.activations = model_.activation_bytes(tokens);
    for (const auto& stage : stages_) {
      if (plan.warning.empty()) plan.warning = io::context_warning(config_, stage.length);
    }
    return plan;
  }

  at::Tensor backward(int64_t step, std::span<const int64_t> micro_batches,
                      const Complete&) override {
    const int64_t each = windows_at_once(step), first = micro_batches[0] * each;
    const int64_t count = std::min(each, windows_of(step) - first), length = length_of(step) + 1;
    const auto window = [&](uint64_t index, int32_t* out) { windows_.window(index, length, out); };
    const at::Tensor batch = batch_of(window_index(step, first), count, length, synthetic_, window);
    const double share = static_cast<double>(count) / static_cast<double>(windows_of(step));
    const at::Tensor loss = model_.loss(batch, models::dense_attention).mul(share);
    loss.backward();
    return loss.detach().view(1);
  }

  std::map<std::string, double> validate(int64_t steps, Ranks& ranks) override {
    const auto measure = [&](const at::Tensor& ids) {
      return model_.loss(ids.view({1, -1}), models::dense_attention).to(at::kDouble).view(1);
    };
    const int64_t length = length_of(steps - 1);
    return by_name(mean_over_windows({valid_, length + 1, settings_.valid_tokens / length}, 1,
                                     settings_.device, measure, ranks),
                   {""});
  }

  int64_t skipped_documents() const {
    return train_.skipped_documents() + valid_.skipped_documents();
  }

  // In `folder`, as Hugging Face has it.
  void save(const std::filesystem::path& folder) const {
    model_.save(folder, config_json_, settings_.tokenizer);
  }

 private:
  int num_ranks() const { return settings_.loop.ranks ? settings_.loop.ranks->size() : 1; }
  at::ScalarType dtype() const {
    if (settings_.dtype != at::ScalarType::Undefined) return settings_.dtype;
    return settings_.device.is_cuda() ? at::kBFloat16 : at::kFloat;
  }

  int64_t length_of(int64_t step) const {
    const auto steps = static_cast<double>(settings_.loop.steps);
    for (const auto& stage : stages_) {
      if (static_cast<double>(step) < stage.until * steps) return stage.length;
    }
    return stages_.back().length;
  }
  int64_t windows_of(int64_t step) const { return settings_.tokens_per_step / length_of(step); }
  int64_t micro_batch_tokens() const {
    if (settings_.micro_batch_tokens > 0) return settings_.micro_batch_tokens;
    return settings_.device.is_cuda() ? settings_.tokens_per_step : kCpuMicroBatch;
  }
  // Where no number is given, every process gets a micro-batch. That is none of the settings: a run
  // may go on with other processes.
  int64_t tokens_at_once() const {
    const int64_t share = settings_.tokens_per_step / num_ranks();
    return settings_.micro_batch_tokens > 0 ? micro_batch_tokens()
                                            : std::min(micro_batch_tokens(), share);
  }
  int64_t windows_at_once(int64_t step) const {
    return std::max<int64_t>(1, tokens_at_once() / length_of(step));
  }

  void check_lengths() const {
    for (const auto& [until, length] : stages_) {
      for (const auto& stream : train_.streams) {
        SEER_CHECK(stream.size() > length, stream.file().source(), " has ",
                   counted(stream.size(), "token"), ", fewer than one window of ", length + 1,
                   ": give more text or a smaller length");
      }
      check_held_out({valid_, length + 1, 1});
    }
  }

  const PretrainSettings& settings_;
  const std::vector<LengthStage> stages_;
  json config_json_;
  io::ModelConfig config_;
  Mixture train_, valid_;
  RandomWindows windows_;
  SyntheticShare synthetic_;
  LanguageModel model_;
};

}  // namespace

std::vector<LengthStage> stages_of(const PretrainSettings& settings) {
  const auto& lengths = settings.lengths;
  // One length needs no end, whatever the default list says.
  if (lengths.empty() || (lengths.size() > 1 && settings.stage_ends.size() + 1 != lengths.size())) {
    throw UsageError("--stage-ends: want one less than --lengths");
  }
  std::vector<LengthStage> stages;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (settings.tokens_per_step % lengths[i] != 0) {
      throw UsageError(message("--tokens-per-step ", settings.tokens_per_step,
                               ": want a multiple of every length, here ", lengths[i]));
    }
    const double end = i + 1 < lengths.size() ? settings.stage_ends[i] : 1.0;
    if (!stages.empty() && end <= stages.back().until) {
      throw UsageError("--stage-ends: want each above the one before");
    }
    stages.push_back({end, lengths[i]});
  }
  return stages;
}

void check(const PretrainSettings& settings) {
  check(settings.loop);
  check(settings.data);
  check(settings.muon);
  check(settings.adamw);
  check(settings.schedule);
  PretrainSettings copy = settings;
  each_setting(copy, CheckSetting());
  for (const auto& [until, length] : stages_of(settings)) {
    if (!settings.data.valid.empty() && settings.valid_tokens < length) {
      throw UsageError(message("valid_tokens is ", settings.valid_tokens,
                               ", want at least one window of ", length));
    }
  }
  if (!settings.model_config.empty()) return;
  each_setting(copy.sizes, CheckSetting());
  CheckSetting()("rms_norm_eps", settings.sizes.rms_norm_eps, range(0, 1));
  if (settings.sizes.heads % settings.sizes.kv_heads != 0) {
    throw UsageError(message("--heads ", settings.sizes.heads, ": want a multiple of --kv-heads ",
                             settings.sizes.kv_heads));
  }
}

RunResult pretrain(const PretrainSettings& settings) {
  check(settings);
  const bool is_first = settings.loop.is_first();
  if (is_first) {
    check_run_folder(settings.loop.out, "pretrain", LanguageModel::files(settings.tokenizer));
  }
  const io::Tokenizer tokenizer = io::Tokenizer::load(settings.tokenizer);
  if (settings.device.is_cuda()) order_attention_kernels(settings.deterministic);
  Pretraining task(settings, tokenizer);
  const InterruptGuard guard(Ranks::same_signal_seconds());  // until all is saved
  RunResult result = run(task, settings.loop);
  result.skipped_documents = task.skipped_documents();
  if (is_first) {
    task.save(settings.loop.out);
    check_run_is_there(settings.loop.out, "the model is");
  }
  guard.answer(stopped_when_done("pretrain", settings.loop, "the model is"));
  return result;
}

}  // namespace seer::train
