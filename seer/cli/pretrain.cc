// seer pretrain: a small language model from scratch.

#include "seer/train/tasks/pretrain.h"

#include "seer/base/file.h"
#include "seer/base/limits.h"
#include "seer/cli/data_args.h"
#include "seer/cli/device.h"
#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"

namespace seer::cli {
namespace {

// Lengths and the shares of steps at which they end, as two lists.
std::vector<train::LengthStage> stages_of(const std::vector<int64_t>& lengths,
                                          const std::vector<double>& until,
                                          int64_t tokens_per_step) {
  // One length needs no end, whatever the default list says.
  if (lengths.size() > 1 && until.size() + 1 != lengths.size()) {
    throw UsageError("--stage-ends: want one less than --lengths");
  }
  std::vector<train::LengthStage> stages;
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (tokens_per_step % lengths[i] != 0) {
      throw UsageError(message("--tokens-per-step ", tokens_per_step,
                               ": want a multiple of every length, here ", lengths[i]));
    }
    const double end = i + 1 < lengths.size() ? until[i] : 1.0;
    if (!stages.empty() && end <= stages.back().until) {
      throw UsageError("--stage-ends: want each above the one before");
    }
    stages.push_back({end, lengths[i]});
  }
  return stages;
}

}  // namespace

int pretrain(int argc, char** argv, int first) {
  train::PretrainSettings s;
  DataArgs data;
  LoopArgs loop;
  ModelArgs model;
  std::string tokenizer = embedded_model(), config;
  std::vector<int64_t> lengths;
  std::vector<double> stage_ends;
  for (const auto& stage : s.stages) {
    lengths.push_back(stage.length);
    if (stage.until < 1) stage_ends.push_back(stage.until);
  }
  int64_t warmup = -1;
  Allowed share = above(0, 1);
  share.without_most = true;
  RankArgs processes;
  Args args("pretrain",
            "Trains a small language model from scratch: bf16 on a GPU, f32 on a CPU. With several "
            "GPUs or machines: torchrun --no-python seer pretrain ...");
  data.add(args, s.data);
  loop.add(args, s.loop);
  args.group("Model");
  args.add("tokenizer", tokenizer, "folder with tokenizer.json");
  args.add("model-config", config, "a config.json; instead of the sizes");
  const Allowed size = range(1, limits::kHidden);
  args.add("hidden", s.sizes.hidden, size, "size of the residual stream");
  args.add("layers", s.sizes.layers, range(1, limits::kLayers), "layers");
  args.add("heads", s.sizes.heads, range(1, limits::kHeads),
           "query heads, a multiple of --kv-heads");
  args.add("kv-heads", s.sizes.kv_heads, range(1, limits::kHeads), "key heads");
  args.add("head-dim", s.sizes.head_dim, multiple(2, 2, limits::kHeadDim), "head size");
  args.add("intermediate", s.sizes.intermediate, size, "size of the gated MLP");
  args.add("rope-theta", s.sizes.rope_theta, above(1, 1e15), "base of RoPE");
  args.group("Training");
  model.add_device(args, "auto: cuda where there is one");
  model.add_threads(args);
  args.add("lengths", lengths, range(2, limits::kTokens), "tokens of a window, in stages");
  args.add("stage-ends", stage_ends, share,
           "share of the steps at which each stage but the last ends");
  args.add("tokens-per-step", s.tokens_per_step, range(2, limits::kStepTokens),
           "a multiple of every length");
  args.add("micro-batch-tokens", s.micro_batch_tokens, range(0, limits::kStepTokens),
           "tokens in memory at once; 0: a step on a GPU, 4096 on a CPU");
  args.add("valid-tokens", s.valid_tokens, range(1, limits::kStepTokens), "of each held-out text");
  args.add("matrix-learning-rate", s.matrix_learning_rate, above(0, 100),
           "of Muon: matrices of the layers");
  args.add("other-learning-rate", s.other_learning_rate, above(0, 100),
           "of AdamW: embedding and norms");
  args.add("warmup", warmup, or_automatic(range(0, limits::kSteps), -1),
           "steps of warm-up; -1: 100, at most a sixth of all");
  args.add("constant-share", s.schedule.constant_share, range(0, 1),
           "share of the steps after which the learning rate falls");
  args.add("final-share", s.schedule.floor, range(0, 1), "share of the learning rate at the end");
  args.flag("deterministic", s.deterministic, "GPU: the same bits at every run; slower");
  args.add("seed", s.seed, at_least(0), "of weights and data");
  processes.add(args);
  args.when_read([&] {
    check_model_folder("tokenizer", tokenizer);
    if (!config.empty()) check_input(config);
    s.stages = stages_of(lengths, stage_ends, s.tokens_per_step);
    if (config.empty() && s.sizes.heads % s.sizes.kv_heads != 0) {
      throw UsageError(
          message("--heads ", s.sizes.heads, ": want a multiple of --kv-heads ", s.sizes.kv_heads));
    }
  });
  if (!args.parse(argc, argv, first)) return 0;
  set_threads(model.threads);
  if (warmup != -1) s.schedule.warmup = warmup;
  data.fill(s.data);
  s.data.threads = model.threads;
  s.loop.out = loop.out;
  s.tokenizer = tokenizer;
  s.model_config = config;
  s.device = resolve_device(model.device, torch_gpus(), [] { return true; });
  train::check(s);
  const auto ranks = processes.start(s.device);
  s.loop.ranks = ranks.get();
  s.data.show_progress = ranks->is_first();
  const train::RunResult result = train::pretrain(s);
  if (ranks->is_first()) print_result("pretrain", result, loop.out);
  return 0;
}

}  // namespace seer::cli
