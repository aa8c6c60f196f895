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
#include "seer/io/context.h"
#include "seer/models/fingerprint.h"
#include "seer/models/memory.h"
#include "seer/train/data/synthetic.h"
#include "seer/train/loop/run_folder.h"
#include "seer/train/loop/validation.h"
#include "seer/train/tasks/gate_training.h"
#include "seer/train/tasks/language_model.h"

namespace seer::train {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kGates = "gates";  // folder in that of the model
constexpr const char* kGeneration = "generation_config.json";

at::ScalarType dtype_of(const FinetuneSettings& settings) {
  if (settings.dtype != at::ScalarType::Undefined) return settings.dtype;
  return settings.device.is_cuda() ? at::kBFloat16 : at::kFloat;
}

std::vector<std::string> result_files(const FinetuneSettings& settings) {
  std::vector<std::string> names = LanguageModel::files(settings.model);
  if (fs::exists(settings.model / kGeneration)) names.emplace_back(kGeneration);
  for (const fs::path& file : {fs::path("config.json"), io::gate_weights_path("")}) {
    names.push_back((fs::path(kGates) / file.filename()).string());
  }
  return names;
}

// What the run takes of the device, before it is taken.
Plan plan_of(const io::ModelConfig& model, const FinetuneSettings& s) {
  const auto windows = static_cast<double>(std::min(s.micro_batch, s.sequences)),
             tokens = windows * static_cast<double>(s.length);
  const double hidden = model.hidden_size, q = double(model.num_heads) * model.head_dim,
               kv = double(model.num_kv_heads) * model.head_dim;
  const auto element = static_cast<double>(c10::elementSize(dtype_of(s)));
  Plan plan;
  plan.step =
      message(s.sequences, s.sequences == 1 ? " window" : " windows", " of ", s.length, " tokens");
  // Masters with gradients and two moments; copies.
  plan.trained = 4 * models::weight_bytes(model, at::kFloat);
  if (dtype_of(s) != at::kFloat) plan.trained += models::weight_bytes(model, dtype_of(s));
  // Inputs of all layers, what one of them keeps for its gradient, the head's gradient.
  plan.activations = element * tokens *
                         (model.num_layers * hidden + 8 * hidden + 6 * q + 6 * kv +
                          5.0 * model.intermediate_size) +
                     4.0 * hidden * static_cast<double>(model.vocab_size);
  if (s.is_sparse()) {
    const double blocks = std::ceil(static_cast<double>(s.length) / s.gate.block_size);
    const double map = 4.0 * model.num_heads * blocks * blocks * windows;
    const double kept = s.is_by_density() ? 2 * s.density : 1;
    // Map, scores, their gradient and softmax; lists of all layers.
    plan.maps = map * (4 + std::min(1.0, kept) * model.num_layers);
  }
  return plan;
}

void check_memory(const Plan& plan, const at::Device& device) {
  const double there = models::available_bytes(device);
  const double needed = plan.trained + plan.activations + plan.maps;
  if (there <= 0 || needed <= there) return;
  const std::string text = message("fine-tuning takes about ", models::bytes_text(needed), ", and ",
                                   models::bytes_text(there), " are free");
  SEER_CHECK(plan.trained < there, text, ": weights with gradients and optimizer states alone are ",
             models::bytes_text(plan.trained), ", choose a smaller model");
  fail(text, ": choose a smaller --length or --micro-batch");
}

// The f32 weights on memory of their own: a file's mapped pages are read-only.
models::ModelWeights owned(models::ModelWeights weights) {
  const bool is_tied = weights.head.is_same(weights.embedding);
  for (auto& [name, weight] : models::named_weights(weights)) *weight = weight->clone();
  if (is_tied) weights.head = weights.embedding;
  return weights;
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
               owned(base.weights()), dtype_of(settings), settings.device) {
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
    std::vector<ParameterGroup> groups{{"model", model_.parameters(), settings_.adamw,
                                        settings_.learning_rate, settings_.schedule}};
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
             {"dtype", c10::toString(dtype_of(s))},
             {"device", s.device.is_cuda() ? "cuda" : "cpu"},
             {"deterministic", s.deterministic}};
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
  Plan plan() const override { return plan_of(model_.config(), settings_); }
  std::vector<std::string> metrics() const override {
    if (gates_) return {"loss", "gate_loss"};
    return {"loss"};
  }
  void begin_step(int64_t) override { model_.refresh(); }

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
    const auto layer_done = [&](int layer) {
      if (gates_ && complete) complete_gate(*gates_, layer, complete);
    };
    const auto watch = [&](int64_t done, int64_t all) { passed(done, all); };
    const at::Tensor loss = model_.checkpointed(batch, share, runs, complete, layer_done, watch);
    if (!gates_) return loss.view(1);
    const at::Tensor gate_loss = sparse_->loss();
    constexpr double kNone = std::numeric_limits<double>::quiet_NaN();
    return at::stack(
        {loss.to(at::kDouble), trains_gates ? gate_loss : at::full_like(gate_loss, kNone)});
  }

  std::map<std::string, double> validate(int64_t, Ranks& ranks) override {
    model_.refresh();
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
    gates_->save(folder / kGates, saved);
    models::Gates::load(folder / kGates, saved);  // can be read as it was written
  }

 private:
  HeldOut held_out() const { return {valid_, settings_.length + 1, settings_.valid_sequences}; }
  double strength() const {
    return settings_.is_by_density() ? settings_.density : settings_.strength;
  }

  // As the stretched model rotates them, whatever model they were trained for.
  void make_gates() {
    const models::Decoder& model = model_.decoder();
    if (settings_.gates.empty()) {
      io::GateConfig config = settings_.gate;
      if (config.gate_dim == 0) config.gate_dim = model.config().head_dim;
      gates_ = models::Gates::create(config, model, settings_.seed);
    } else {
      gates_ = models::Gates::load(settings_.gates, model, /*foreign=*/true);
    }
    models::Fingerprint fingerprint;
    for (int i = 0; i < model.config().num_layers; ++i) {
      models::GateWeights& layer = gates_->layers()[static_cast<size_t>(i)];
      for (const char letter : {'q', 'k'}) {
        at::Tensor& weight = layer.of(letter);
        if (!weight.defined()) continue;
        weight = weight.clone().requires_grad_();
        fingerprint.add(io::gate_weight_name(i, letter), weight);
      }
    }
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
  check_memory(plan_of(model, settings), settings.device);
  if (settings.device.is_cuda()) order_attention_kernels(settings.deterministic);
}

}  // namespace

void check(const FinetuneSettings& settings) {
  check_each(settings);
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
  auto task = [&] {
    const auto base = models::Decoder::load(settings.model, at::kFloat, at::kCPU);
    if (!settings.gates.empty()) {
      models::Gates::load(settings.gates, base, settings.foreign_gates);
    }
    const DataSettings& data = settings.data;
    return Finetuning(settings,
                      open_mixture(data.train, data.weights, data, tokenizer, settings.model,
                                   base.config().vocab_size),
                      tokenizer, base, result_config(base.config(), settings));
  }();
  RunResult result = run(task, settings.loop);
  result.skipped_documents = task.skipped_documents();
  if (is_first) {
    task.save(settings.loop.out);
    check_run_is_there(settings.loop.out, "the model is");
  }
  return result;
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
  return run(task, settings.loop);
}

}  // namespace seer::train
