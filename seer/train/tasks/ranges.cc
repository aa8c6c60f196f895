// check() of all settings of training: what they may be.

#include "seer/base/limits.h"
#include "seer/base/range.h"
#include "seer/train/tasks/distill.h"
#include "seer/train/tasks/pretrain.h"

namespace seer::train {
namespace {

constexpr double kLargestRate = 100, kLargest = 1e9;  // far from what trains, near to no overflow

void check_rate(const char* name, double rate) {
  check_positive(name, rate, kLargestRate);
}

void check_sizes(const ModelSizes& sizes) {
  check_range<int64_t>("hidden", sizes.hidden, 1, limits::kHidden);
  check_range<int64_t>("layers", sizes.layers, 1, limits::kLayers);
  check_range<int64_t>("heads", sizes.heads, 1, limits::kHeads);
  check_range<int64_t>("kv_heads", sizes.kv_heads, 1, sizes.heads);
  check_range<int64_t>("head_dim", sizes.head_dim, 1, limits::kHeadDim);
  check_range<int64_t>("intermediate", sizes.intermediate, 1, limits::kHidden);
  check_range("rope_theta", sizes.rope_theta, 1.0, 1e12);
  check_range("rms_norm_eps", sizes.rms_norm_eps, 0.0, 1.0);
}

void check_stages(const PretrainSettings& settings) {
  if (settings.stages.empty()) {
    throw UsageError("no stage is given: want a length for each share of the steps");
  }
  double before = 0;
  for (const auto& [until, length] : settings.stages) {
    check_range<int64_t>("length", length, 2, limits::kTokens);
    if (settings.tokens_per_step % length != 0) {
      throw UsageError(message("tokens_per_step is ", settings.tokens_per_step,
                               ", want a multiple of each stage's length, here ", length));
    }
    if (!(until > before && until <= 1)) {
      throw UsageError(message("a stage of length ", length, " lasts until ", until,
                               " of the steps, want more than the stage before (", before,
                               ") and at most 1"));
    }
    before = until;
    if (!settings.data.valid.empty() && settings.valid_tokens < length) {
      throw UsageError(message("valid_tokens is ", settings.valid_tokens,
                               ", want at least one window of ", length));
    }
  }
}

}  // namespace

void check(const Schedule& schedule) {
  if (schedule.warmup) check_range<int64_t>("warmup", *schedule.warmup, 0, limits::kSteps);
  check_range("constant_share", schedule.constant_share, 0.0, 1.0);
  check_range("final share of the learning rate", schedule.floor, 0.0, 1.0);
}

void check(const AdamW& rule) {
  check_below("beta1 of AdamW", rule.beta1, 0, 1);
  check_below("beta2 of AdamW", rule.beta2, 0, 1);
  check_positive("eps of AdamW", rule.eps, 1);
  check_range("weight_decay", rule.weight_decay, 0.0, kLargestRate);
}

void check(const Muon& rule) {
  check_below("momentum of Muon", rule.momentum, 0, 1);
  check_range("iterations of Muon", rule.iterations, 1, 100);
  check_range("weight_decay of Muon", rule.weight_decay, 0.0, kLargestRate);
}

void check(const LoopSettings& settings) {
  if (settings.out.empty()) {
    throw UsageError("no folder is given for the run: name one to write to");
  }
  check_range<int64_t>("steps", settings.steps, 1, limits::kSteps);
  check_range("clip", settings.clip, 0.0, kLargest);
  check_range<int64_t>("save_every", settings.save_every, 0, limits::kSteps);
  check_range<int64_t>("valid_every", settings.valid_every, 0, limits::kSteps);
}

void check(const DataSettings& settings) {
  for (const auto& [path, weight] : settings.train) {
    check_range(("weight of " + path.string()).c_str(), weight, 0.0, kLargest);
  }
  check_range("synthetic_share", settings.synthetic_share, 0.0, 1.0);
  check_range("threads", settings.threads, 0, limits::kThreads);
}

void check(const DistillSettings& settings) {
  check(settings.loop);
  check(settings.data);
  check(settings.adamw);
  check(settings.schedule);
  settings.gate.check(/*head_dim=*/0);
  check_range<int64_t>("sequences", settings.sequences, 1, limits::kSequences);
  check_range<int64_t>("micro_batch", settings.micro_batch, 1, limits::kSequences);
  check_range<int64_t>("length", settings.length, 2, limits::kTokens);
  check_range<int64_t>("sequences x length", settings.sequences * settings.length, 2,
                       limits::kStepTokens);
  check_range<int64_t>("valid_sequences", settings.valid_sequences, 0, limits::kSequences);
  if (settings.length <= settings.gate.block_size) {
    throw UsageError(message("length is ", settings.length, ", which is one block of ",
                             settings.gate.block_size,
                             " tokens: a gate learns to choose among blocks, want more than one"));
  }
  if (settings.loss != "kl" && settings.loss != "mse") {
    throw UsageError("loss is \"" + settings.loss + "\", want \"kl\" or \"mse\"");
  }
  if (settings.skip != -1) check_below("skip", settings.skip, 0, 1);
  check_positive("loss_scale", settings.loss_scale, kLargest);
  check_rate("learning_rate", settings.learning_rate);
}

void check(const PretrainSettings& settings) {
  check(settings.loop);
  check(settings.data);
  check(settings.muon);
  check(settings.adamw);
  check(settings.schedule);
  if (settings.model_config.empty()) check_sizes(settings.sizes);
  check_range<int64_t>("tokens_per_step", settings.tokens_per_step, 2, limits::kStepTokens);
  check_range<int64_t>("micro_batch_tokens", settings.micro_batch_tokens, 0, limits::kStepTokens);
  check_range<int64_t>("valid_tokens", settings.valid_tokens, 0, limits::kStepTokens);
  check_stages(settings);
  check_rate("matrix_learning_rate", settings.matrix_learning_rate);
  check_rate("other_learning_rate", settings.other_learning_rate);
}

}  // namespace seer::train
