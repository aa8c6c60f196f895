#pragma once
// The task of distillation: windows through the frozen model, each layer's gate trained as soon as its attention is there.
// For distill.cc.

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/shown.h"
#include "seer/io/context.h"
#include "seer/models/attention.h"
#include "seer/models/gates/gates.h"
#include "seer/torch/ops.h"
#include "seer/torch/stopwatch.h"
#include "seer/train/data/synthetic.h"
#include "seer/train/loop/validation.h"
#include "seer/train/tasks/distill.h"
#include "seer/train/tasks/gate_training.h"

namespace seer::train {

using nlohmann::json;

inline constexpr const char *kTask = "distill", *kLookupTask = "distill --lookup-heads";
inline constexpr const char* kLookupFolder = "lookup";  // of its run, within that of new gates

// What is written into the folder of gates.
inline std::vector<std::string> gate_files() {
  return {io::gate_weights_path("").filename().string(), "config.json", "heads.json"};
}
// The same, with what discards a run of new gates.
inline std::vector<std::string> files_of_new_gates() {
  std::vector<std::string> files = gate_files();
  files.emplace_back(kLookupFolder);
  return files;
}

class Distillation : public Task {
 public:
  // Of gates as they are created; or, where they have lookup heads, of these heads' projections alone. `known_by`: the
  // run's settings, but for the heads that were found.
  Distillation(const models::Decoder& model, const io::Tokenizer& tokenizer, const Mixture& train,
               const Mixture& valid, const DistillSettings& settings, json known_by,
               models::Gates gates)
      : model_(model),
        settings_(settings),
        known_by_(std::move(known_by)),
        train_(train),
        valid_(valid),
        windows_(train_, settings.seed, settings.length),
        synthetic_(settings.data.synthetic_share, settings.seed, tokenizer,
                   model.config().vocab_size),
        gates_(std::move(gates)),
        of_lookups_(gates_.config().lookup_rank > 0),
        attention_time_(model.device()),
        gate_time_(model.device()) {
    check_held_out(held_out());
    skip_ = gate_skip(settings.skip, settings.loss);
    gates_.make_trainable();
    if (of_lookups_) keep_gates_as_they_are();
  }

  std::string name() const override { return of_lookups_ ? kLookupTask : kTask; }

  std::vector<ParameterGroup> groups() override {
    return {{"gates", trained(), settings_.adamw,
             of_lookups_ ? settings_.lookup.learning_rate : settings_.learning_rate,
             settings_.schedule}};
  }

  json settings() const override {
    json out = known_by_;
    if (of_lookups_) out["lookup"]["heads"] = gates_.config().lookup_heads;
    return out;
  }

  std::vector<std::string> files() const override {
    if (!of_lookups_) return files_of_new_gates();
    return settings_.gates.empty() ? std::vector<std::string>{} : gate_files();
  }

  int64_t micro_batches(int64_t) const override {
    return (settings_.sequences + settings_.micro_batch - 1) / settings_.micro_batch;
  }
  // Of streamed layers all, so that a layer travels once a step.
  int64_t at_once() const override { return model_.is_streamed() ? micro_batches(0) : 1; }
  int64_t tokens(int64_t) const override { return settings_.sequences * settings_.length; }
  std::vector<std::string> metrics() const override {
    if (settings_.loss == "kl") return {"loss", "kl_per_row"};
    return {"loss"};
  }

  Plan plan() const override {
    const io::ModelConfig& model = model_.config();
    const auto batches = static_cast<double>(at_once()),
               together = static_cast<double>(std::min(settings_.micro_batch, settings_.sequences)),
               tokens = together * static_cast<double>(settings_.length),
               element = static_cast<double>(model_.weights().embedding.element_size());
    const double hidden = model.hidden_size, q = double(model.num_heads) * model.head_dim,
                 kv = double(model.num_kv_heads) * model.head_dim;
    const double blocks = std::ceil(static_cast<double>(settings_.length) /
                                    static_cast<double>(settings_.gate.block_size));
    Plan plan;
    plan.step =
        message(counted(settings_.sequences, "sequence"), " of ", settings_.length, " tokens");
    plan.weights = model_bytes();
    const int ranks = settings_.loop.ranks ? settings_.loop.ranks->size() : 1;
    for (const Parameter& gate : trained()) {  // with gradient, its share of two moments
      plan.trained += (2 + 2.0 / ranks) * bytes_of(gate.leaf);
    }
    // The states of all batches that wait, and what a layer makes: its attention, or its MLP, which
    // takes some tokens at a time.
    plan.activations = element * (tokens * hidden * (batches + 2) +
                                  std::max(tokens * (2 * q + 2 * kv),
                                           std::min(tokens, 8192.0) * 3 * model.intermediate_size));
    if (settings_.warns_of_context) plan.warning = io::context_warning(model, settings_.length);
    // Map, scores, their gradient and softmax, f32.
    plan.maps = 4 * 4.0 * model.num_heads * blocks * blocks * together;
    return plan;
  }

  at::Tensor backward(int64_t step, std::span<const int64_t> micro_batches,
                      const Complete& complete) override {
    std::vector<Batch> batches;
    for (const int64_t i : micro_batches) batches.push_back(batch_of(step, i));
    return run_model(batches, /*trains=*/true, complete);
  }

  std::map<std::string, double> validate(int64_t, Ranks& ranks) override {
    const auto measure = [&](const at::Tensor& ids) {
      return run_model({{ids, 1, 1.0}}, /*trains=*/false, nullptr);
    };
    std::vector<std::string> prefixes = metrics();
    for (std::string& name : prefixes) name += "_";
    return by_name(mean_over_windows(held_out(), static_cast<int64_t>(prefixes.size()),
                                     model_.device(), measure, ranks),
                   prefixes);
  }

  const models::Gates& gates() const { return gates_; }
  // One of the windows that training does not come to, int64 [length].
  at::Tensor unused_window(int64_t index) {
    const auto window = [&](uint64_t at, int32_t* out) { windows_.window(at, out); };
    const int64_t steps = std::max(settings_.loop.steps, settings_.lookup.steps);
    const auto at = static_cast<uint64_t>(steps * settings_.sequences + index);
    return train::batch_of(at, 1, settings_.length, synthetic_, window)[0];
  }
  double attention_seconds() { return attention_time_.seconds(); }
  double gate_seconds() { return gate_time_.seconds(); }

 private:
  static double bytes_of(const at::Tensor& tensor) {
    return tensor.defined() ? static_cast<double>(tensor.nbytes()) : 0;
  }

  void keep_gates_as_they_are() {
    for (models::GateWeights& layer : gates_.layers()) {
      if (layer.q.defined()) layer.q.requires_grad_(false);
      layer.k.requires_grad_(false);
    }
  }
  std::vector<Parameter> trained() const {
    std::vector<Parameter> named = gate_parameters(gates_);
    std::erase_if(named, [](const Parameter& x) { return !x.leaf.requires_grad(); });
    return named;
  }
  std::vector<at::Tensor> trained_leaves(int layer) const {
    std::vector<at::Tensor> leaves = gate_leaves(gates_, layer);
    std::erase_if(leaves, [](const at::Tensor& x) { return !x.requires_grad(); });
    return leaves;
  }

  // Sequences that are run at once: ids int64 [count * length], and their share of the step.
  struct Batch {
    at::Tensor ids;
    int64_t count;
    double share;
  };

  // On the device: two layers at a time where they are streamed.
  double model_bytes() const {
    models::ModelWeights weights = model_.weights();
    double layers = 0, all = 0;
    for (const auto& [name, weight] : models::named_weights(weights)) {
      all += bytes_of(*weight);
      if (name.find(".layers.") != std::string::npos) layers += bytes_of(*weight);
    }
    return model_.is_streamed() ? all - layers + 2 * layers / model_.config().num_layers : all;
  }

  HeldOut held_out() const { return {valid_, settings_.length, settings_.valid_sequences}; }

  Batch batch_of(int64_t step, int64_t index) {
    const int64_t first = index * settings_.micro_batch;
    const int64_t count = std::min(settings_.micro_batch, settings_.sequences - first);
    const auto window = [&](uint64_t at, int32_t* out) { windows_.window(at, out); };
    const at::Tensor ids =
        train::batch_of(static_cast<uint64_t>(step * settings_.sequences + first), count,
                        settings_.length, synthetic_, window);
    return {ids.view(-1), count,
            static_cast<double>(count) / static_cast<double>(settings_.sequences)};
  }

  // One forward pass of the frozen model, all batches through a layer before the next. Each layer's
  // gate gets its loss (and gradient) as soon as the layer's attention is there; nothing of a layer
  // is kept. Returns the metrics, each batch's by its share.
  at::Tensor run_model(const std::vector<Batch>& batches, bool trains, const Complete& complete) {
    const at::NoGradGuard frozen;
    const at::Device device = model_.device();
    std::vector<models::Decoder::Pass> passes;
    std::vector<torch_ops::Ragged> ragged;
    for (const Batch& batch : batches) {
      models::Sequences sequences;
      sequences.q_lens.assign(static_cast<size_t>(batch.count), settings_.length);
      sequences.k_lens = sequences.q_lens;
      ragged.push_back(torch_ops::make_ragged(sequences.q_lens, sequences.k_lens,
                                              settings_.gate.block_size, device));
      passes.push_back(model_.begin(batch.ids.to(device), sequences));
      if (waits_on_host(batches)) passes.back().x = on_host(passes.size() - 1, passes.back().x);
    }
    at::Tensor sum = at::zeros({}, at::TensorOptions(device).dtype(at::kDouble));
    int64_t layers = 0;
    for (int layer = 0; layer < model_.config().num_layers; ++layer) {
      for (size_t b = 0; b < batches.size(); ++b) {
        const bool is_last = b + 1 == batches.size();
        const models::Attention attention = [&](const models::AttentionInput& input) {
          if (models::window_cuts(input) || trained_leaves(input.layer).empty()) {
            return models::dense_attention(input);
          }
          if (b == 0) ++layers;
          return train_gate(input, ragged[b], batches[b].share, trains, sum,
                            is_last ? complete : nullptr);
        };
        models::Decoder::Pass& pass = passes[b];
        pass.x = pass.x.to(device, /*non_blocking=*/true);
        model_.run_layer(layer, pass, attention);
        if (waits_on_host(batches)) pass.x = on_host(b, pass.x);
        const auto all = static_cast<int64_t>(batches.size());
        passed(layer * all + static_cast<int64_t>(b) + 1, model_.config().num_layers * all);
      }
    }
    SEER_CHECK(layers > 0, "every layer of the model has a sliding window shorter than ",
               settings_.length, " tokens: there is no gate to train");
    const at::Tensor loss = sum * settings_.loss_scale;
    if (settings_.loss != "kl") return loss.view(1);
    // The loss is a mean over all elements: times the blocks of a row, it is the mean over rows.
    const double rows = static_cast<double>(ragged[0].num_blocks) / static_cast<double>(layers);
    return at::stack({loss, sum * rows});
  }

  // The layer's attention; its gate's loss is added to `sum` by the batch's share.
  at::Tensor train_gate(const models::AttentionInput& input, const torch_ops::Ragged& ragged,
                        double share, bool trains, at::Tensor& sum, const Complete& complete) {
    std::optional<torch_ops::Stopwatch::Span> span;
    if (settings_.profile) span.emplace(attention_time_);
    const auto [o, target] = of_lookups_ ? attend_beside_map(input, ragged) : attend(input, ragged);
    span.reset();
    if (settings_.profile) span.emplace(gate_time_);
    const at::AutoGradMode grad(trains);
    const at::Tensor scores =
        of_lookups_ ? lookup_scores(input, ragged) : gates_.scores(input, ragged);
    const at::Tensor loss = torch_ops::gate_loss(scores, target, ragged, skip_, settings_.loss);
    if (trains) (loss * (settings_.loss_scale * share)).backward();
    if (complete) complete(trained_leaves(input.layer));
    sum.add_(loss.detach().mul(share));
    return o;
  }

  // Dense attention, and the map of all heads.
  static std::pair<at::Tensor, at::Tensor> attend(const models::AttentionInput& input,
                                                  const torch_ops::Ragged& ragged) {
    const auto [o, lse, map] =
        torch_ops::pooled_attn(input.q, input.k, input.v, ragged, input.scale, /*causal=*/true,
                               /*group_max=*/false, /*normalise=*/true);
    return {o, map};
  }
  // The same with the map of lookup heads alone: most layers have none, or few.
  std::pair<at::Tensor, at::Tensor> attend_beside_map(const models::AttentionInput& input,
                                                      const torch_ops::Ragged& ragged) const {
    const at::Tensor& heads = gates_.lookup_heads(input.layer);
    const at::Tensor read = heads.div(input.q.size(1) / input.k.size(1), "floor");
    const auto [lse, map] = torch_ops::pooled_map(
        input.q.index_select(1, heads), input.k.index_select(1, read), ragged, input.scale,
        /*causal=*/true, /*group_max=*/false, /*normalise=*/true);
    return {models::dense_attention(input), map};
  }
  at::Tensor lookup_scores(const models::AttentionInput& input,
                           const torch_ops::Ragged& ragged) const {
    const torch_ops::Lookups lookups = gates_.lookups(input);
    return torch_ops::lookup_score(lookups.q, lookups.k, ragged, input.scale);
  }

  bool waits_on_host(const std::vector<Batch>& batches) const {
    return settings_.states_on_host && batches.size() > 1;
  }
  // In pinned memory, where copies from a GPU need no other; the same for a batch's states of all
  // layers and steps, which are copied in the order of the stream.
  at::Tensor on_host(size_t batch, const at::Tensor& x) {
    if (x.is_cpu()) return x;
    if (host_states_.size() <= batch) host_states_.resize(batch + 1);
    at::Tensor& host = host_states_[batch];
    if (!host.defined() || host.sizes() != x.sizes()) {
      host = at::empty(x.sizes(), x.options().device(at::kCPU).pinned_memory(true));
    }
    return host.copy_(x, /*non_blocking=*/true);
  }

  const models::Decoder& model_;
  const DistillSettings& settings_;
  const json known_by_;
  const Mixture &train_, &valid_;
  PackedWindows windows_;
  SyntheticShare synthetic_;
  models::Gates gates_;
  const bool of_lookups_;
  double skip_ = 0;
  std::vector<at::Tensor> host_states_;  // of each batch
  torch_ops::Stopwatch attention_time_, gate_time_;
};

}  // namespace seer::train
