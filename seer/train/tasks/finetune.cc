#include "seer/train/tasks/finetune.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/stack.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <memory>
#include <optional>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/interrupt.h"
#include "seer/base/shown.h"
#include "seer/io/context.h"
#include "seer/models/fingerprint.h"
#include "seer/train/data/synthetic.h"
#include "seer/train/loop/run_folder.h"
#include "seer/train/loop/validation.h"
#include "seer/train/tasks/finetune_memory.h"
#include "seer/train/tasks/gate_training.h"
#include "seer/train/tasks/language_model.h"

namespace seer::train {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kGates = "gates";  // folder in that of the model
constexpr const char* kGeneration = "generation_config.json";

std::vector<std::string> result_files(const FinetuneSettings& settings) {
  std::vector<std::string> names = LanguageModel::files(settings.model);
  if (fs::exists(settings.model / kGeneration)) names.emplace_back(kGeneration);
  for (const fs::path& file : {fs::path("config.json"), io::gate_weights_path("")}) {
    names.push_back((fs::path(kGates) / file.filename()).string());
  }
  return names;
}

class Finetuning : public Task {
 public:
  Finetuning(const FinetuneSettings& settings, Mixture train, const io::Tokenizer& tokenizer,
             const models::Decoder& base, const json& config_json)
      : settings_(settings),
        config_json_(config_json),
        weights_(base.origin().fingerprint),
        train_(std::move(train)),
        windows_(train_, settings.seed, settings.length + 1),
        synthetic_(settings.data.synthetic_share, settings.seed, tokenizer,
                   base.config().vocab_size),
        end_(settings.documents == "packed" ? tokenizer.eos_id().value_or(-1) : -1),
        model_(io::ModelConfig::from_json(config_json, "the fine-tuned model's config.json"),
               base.weights(), settings.computes_in(), settings.device) {
    if (!settings.data.valid.empty()) {
      valid_ = open_mixture(settings.data.valid, {}, settings.data, tokenizer, settings.model,
                            base.config().vocab_size);
    }
    check_held_out(held_out());
    settings_.schedule.form =
        settings.schedule_form == "cosine" ? Schedule::Form::cosine : Schedule::Form::linear;
    gate_skip_ = gate_skip(settings.gate_skip, settings.gate_loss);
    if (settings.is_sparse()) make_gates();
  }

  std::string name() const override { return "finetune"; }

  std::vector<ParameterGroup> groups() override {
    const FinetuneSettings& s = settings_;
    std::vector<ParameterGroup> groups;
    if (s.is_muon()) {
      groups = model_.muon_groups({s.muon, s.adamw, s.matrix_learning_rate, s.learning_rate},
                                  s.schedule);
    } else {
      groups = {{"model", model_.parameters(), s.adamw, s.learning_rate, s.schedule}};
    }
    if (!gates_) return groups;
    groups.push_back({"gates", gate_parameters(*gates_), settings_.adamw,
                      settings_.gate_learning_rate, settings_.schedule});
    return groups;
  }

  json settings() const override {
    const FinetuneSettings& s = settings_;
    json all{{"model", config_json_},
             {"weights", weights_},
             {"data", train_.identity()},
             {"valid", valid_.identity()},
             {"synthetic_share", s.data.synthetic_share},
             {"attention", s.attention},
             {"documents", s.documents},
             {"sequences", s.sequences},
             {"length", s.length},
             {"micro_batch", s.micro_batch},
             {"valid_sequences", s.valid_sequences},
             {"learning_rate", s.learning_rate},
             {"adamw", as_json(s.adamw)},
             {"schedule", as_json(s.schedule, s.loop.steps)},
             {"seed", s.seed},
             {"dtype", c10::toString(s.computes_in())},
             {"device", s.device.is_cuda() ? "cuda" : "cpu"},
             {"deterministic", s.deterministic}};
    if (s.is_muon()) {
      all["muon"] = {s.matrix_learning_rate, s.muon.momentum, s.muon.iterations,
                     s.muon.weight_decay};
    }
    if (!gates_) return all;
    const io::GateConfig& gate = gates_->config();
    all["selection"] = {s.rule, strength(), s.sink_blocks, s.local_blocks, s.last_dense_rows};
    all["gate"] = {gate.type, gate.block_size, gate.gate_dim, gate.force_double};
    all["gates"] = first_gates_;
    all["gate_loss"] = {s.gate_loss, gate_skip_, s.gate_loss_weight, s.gate_every};
    all["gate_learning_rate"] = s.gate_learning_rate;
    return all;
  }

  std::vector<std::string> files() const override { return result_files(settings_); }
  int64_t micro_batches(int64_t) const override {
    return (settings_.sequences + settings_.micro_batch - 1) / settings_.micro_batch;
  }
  int64_t tokens(int64_t) const override { return settings_.sequences * settings_.length; }
  Plan plan() const override { return finetune_plan(model_.config(), settings_); }
  std::vector<std::string> metrics() const override {
    if (gates_) return {"loss", "gate_loss"};
    return {"loss"};
  }

  at::Tensor backward(int64_t step, std::span<const int64_t> micro_batches,
                      const Complete& complete) override {
    const int64_t first = micro_batches[0] * settings_.micro_batch,
                  count = std::min(settings_.micro_batch, settings_.sequences - first);
    const double share = static_cast<double>(count) / static_cast<double>(settings_.sequences);
    const auto window = [&](uint64_t at, int32_t* out) { windows_.window(at, out); };
    const TokenBatch batch =
        batch_of_windows(batch_of(static_cast<uint64_t>(step * settings_.sequences + first), count,
                                  settings_.length + 1, synthetic_, window),
                         settings_.device, end_);
    const bool trains_gates = gates_ && step % settings_.gate_every == 0;
    const LayerRuns runs = gates_ ? sparse_->runs(batch.sequences, share, trains_gates)
                                  : LayerRuns{models::dense_attention, models::dense_attention};
    PassWatch watch;
    watch.complete = [&](int part) {
      complete(model_.part(part));
      const bool is_layer = part >= 0 && part < model_.config().num_layers;
      if (gates_ && is_layer) complete(gate_leaves(*gates_, part));
    };
    watch.passed = [&](int64_t done, int64_t all) { passed(done, all); };
    const at::Tensor loss = checkpointed_backward(model_.decoder(), batch, share, runs, watch);
    if (!gates_) return loss.view(1);
    const at::Tensor gate_loss = sparse_->loss();
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    return at::stack({loss.to(at::kDouble) + sparse_->fault(),
                      trains_gates ? gate_loss : at::full_like(gate_loss, kNone)});
  }

  std::map<std::string, double> validate(int64_t, Ranks& ranks) override {
    const models::Attention attention =
        gates_ ? [&](const models::AttentionInput& input) { return sparse_->attend(input); }
               : models::Attention(models::dense_attention);
    const auto measure = [&](const at::Tensor& ids) {
      return model_.loss(ids.view({1, -1}), attention).to(at::kDouble).view(1);
    };
    return by_name(mean_over_windows(held_out(), 1, settings_.device, measure, ranks), {""});
  }

  int64_t skipped_documents() const {
    return train_.skipped_documents() + valid_.skipped_documents();
  }

  // In `folder`, as Hugging Face has it; the gates name the model that lies there.
  void save(const fs::path& folder) const {
    if (fs::exists(settings_.model / kGeneration)) {
      write_file_atomic(folder / kGeneration, read_file(settings_.model / kGeneration));
    }
    model_.save(folder, config_json_, settings_.model);
    if (!gates_) return;
    const auto saved = models::Decoder::load(folder, at::kBFloat16, at::kCPU);
    const bool were_there = fs::exists(io::gate_weights_path(folder / kGates));
    try {
      gates_->save(folder / kGates, saved);
    } catch (...) {
      // Without its gates the folder would pass for a dense model.
      if (!were_there) fs::remove(folder / "config.json");
      throw;
    }
    models::Gates::load(folder / kGates, saved);  // can be read as it was written
  }

 private:
  HeldOut held_out() const { return {valid_, settings_.length + 1, settings_.valid_sequences}; }
  double strength() const {
    return settings_.is_by_density() ? settings_.density : settings_.strength;
  }

  // Gates that see documents of one block alone would learn nothing, and nothing would show it.
  void check_documents() const {
    int64_t longest = 0;
    for (const TokenStream& stream : train_.streams) {
      const auto offsets = stream.file().offsets();
      for (size_t i = 0; i + 1 < offsets.size(); ++i) {
        longest = std::max(longest, offsets[i + 1] - offsets[i]);
      }
    }
    longest += train_.bos >= 0 ? 2 : 1;
    SEER_CHECK(longest > settings_.gate.block_size, "packed documents have ", longest,
               " tokens at most, no more than a block of ", settings_.gate.block_size,
               ": a gate learns to choose among blocks; leave out --documents packed, or give "
               "longer documents");
  }
  // As the stretched model rotates them, whatever model they were trained for.
  void make_gates() {
    const models::Decoder& model = model_.decoder();
    if (end_ >= 0) check_documents();
    if (settings_.gates.empty()) {
      io::GateConfig config = settings_.gate;
      if (config.gate_dim == 0) config.gate_dim = model.config().head_dim;
      gates_ = models::Gates::create(config, model, settings_.seed);
    } else {
      gates_ = models::Gates::load(settings_.gates, model, /*foreign=*/true);
    }
    gates_->make_trainable();
    models::Fingerprint fingerprint;
    for (const Parameter& gate : gate_parameters(*gates_)) fingerprint.add(gate.name, gate.leaf);
    first_gates_ = fingerprint.text();
    models::SparseSettings sparse;
    sparse.block = gates_->config().block_size;
    sparse.selection.rule = settings_.rule;
    sparse.selection.strength = {strength()};
    sparse.selection.sink_blocks = settings_.sink_blocks;
    sparse.selection.local_blocks = settings_.local_blocks;
    sparse.selection.last_dense_rows = settings_.last_dense_rows;
    sparse_ = std::make_unique<GateTraining>(
        model, *gates_, sparse,
        GateLoss{settings_.gate_loss, gate_skip_, settings_.gate_loss_weight});
  }

  FinetuneSettings settings_;
  const json config_json_;
  const std::string weights_;  // fingerprint of those that the run begins with
  Mixture train_, valid_;
  PackedWindows windows_;
  SyntheticShare synthetic_;
  const int64_t end_;  // token that ends a document; -1: windows are whole
  LanguageModel model_;
  double gate_skip_ = 0;
  std::optional<models::Gates> gates_;
  std::string first_gates_;  // fingerprint
  std::unique_ptr<GateTraining> sparse_;
};

// config.json of the result. Error: windows that are too long for it.
json result_config(const io::ModelConfig& base, const FinetuneSettings& settings) {
  json config = io::stretched_config(base, settings.yarn_factor);
  config["torch_dtype"] = "bfloat16";
  if (config.contains("dtype")) config["dtype"] = "bfloat16";
  const int64_t context = io::context_length(io::ModelConfig::from_json(config, "config.json"));
  SEER_CHECK(context == 0 || settings.length <= context, "windows of ", settings.length,
             " tokens are longer than the ", context, " that the model's RoPE covers",
             settings.yarn_factor > 1 ? " with this factor" : "",
             ": choose a larger --yarn-factor or a smaller --length");
  return config;
}

void check_before(const io::ModelConfig& model, const FinetuneSettings& settings) {
  result_config(model, settings);
  check_memory(model, settings);
  if (settings.device.is_cuda()) order_attention_kernels(settings.deterministic);
}

}  // namespace

void check(const FinetuneSettings& settings) {
  check_each(settings);
  check(settings.muon);
  const at::ScalarType dtype = settings.computes_in();
  if (dtype != at::kFloat && dtype != at::kBFloat16) {
    throw UsageError(message("dtype is ", c10::toString(dtype), ", want Float or BFloat16"));
  }
  if (settings.micro_batch > settings.sequences) {
    throw UsageError(message("micro-batch is ", settings.micro_batch, ", more than the ",
                             counted(settings.sequences, "sequence"), " of a step"));
  }
  if (!settings.is_sparse()) {
    if (settings.gates.empty()) return;
    throw UsageError("dense attention trains no gates: leave out --gates, or choose sparse");
  }
  if (settings.length <= settings.gate.block_size) {
    throw UsageError(message("length is ", settings.length, ", which is one block of ",
                             settings.gate.block_size,
                             " tokens: a gate learns to choose among blocks, want more than one"));
  }
  if (settings.is_by_density()) return;
  const double most = kernels::select_rule(settings.rule).largest;
  if (settings.strength <= 0 || settings.strength > most) {
    throw UsageError(message("the rule ", settings.rule, " needs a strength above 0, at most ",
                             most, "; it is ", settings.strength));
  }
}

RunResult finetune(const FinetuneSettings& settings) {
  check(settings);
  const bool is_first = settings.loop.is_first();
  if (is_first) check_run_folder(settings.loop.out, "finetune", result_files(settings));
  check_before(io::ModelConfig::read(settings.model), settings);
  const io::Tokenizer tokenizer = io::Tokenizer::load(settings.model);
  return within_memory(settings, [&] {
    auto task = [&] {
      // Each weight in its own type, on the pages of its file.
      const auto base = models::Decoder::load(settings.model, at::ScalarType::Undefined, at::kCPU);
      if (!settings.gates.empty()) {
        models::Gates::load(settings.gates, base, settings.foreign_gates);
      }
      const DataSettings& data = settings.data;
      return Finetuning(settings,
                        open_mixture(data.train, data.weights, data, tokenizer, settings.model,
                                     base.config().vocab_size),
                        tokenizer, base, result_config(base.config(), settings));
    }();
    const InterruptGuard guard(Ranks::same_signal_seconds());  // until all is saved
    RunResult result = run(task, settings.loop);
    result.skipped_documents = task.skipped_documents();
    if (is_first) {
      task.save(settings.loop.out);
      check_run_is_there(settings.loop.out, "the model is");
    }
    guard.answer(stopped_when_done("finetune", settings.loop, "the model is"));
    return result;
  });
}

RunResult finetune(models::Decoder base, std::vector<int32_t> tokens,
                   const io::Tokenizer& tokenizer, const FinetuneSettings& settings) {
  SEER_CHECK(!settings.loop.keeps && settings.data.valid.empty(),
             "a model in memory is fine-tuned without results");
  check(settings);
  check_before(base.config(), settings);
  auto file = std::make_shared<const TokenFile>(std::move(tokens), "the text");
  Finetuning task(settings, single_mixture(std::move(file), tokenizer), tokenizer, base,
                  result_config(base.config(), settings));
  base.weights() = {};
  return within_memory(settings, [&] { return run(task, settings.loop); });
}

}  // namespace seer::train
