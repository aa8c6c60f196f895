// seer pretrain: a small language model from scratch.

#include "seer/train/pretrain.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>

#include "seer/cli/data_args.h"
#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"

namespace seer::cli {
namespace {

// Lengths and the shares of steps at which they end, as two lists.
std::vector<train::LengthStage> stages_of(const std::vector<int64_t>& lengths,
                                          const std::vector<double>& until) {
  // One length needs no end, whatever the default list says.
  if (lengths.size() > 1 && until.size() + 1 != lengths.size()) {
    throw UsageError("--stage-ends: want one less than --lengths");
  }
  std::vector<train::LengthStage> stages;
  for (size_t i = 0; i < lengths.size(); ++i) {
    stages.push_back({i + 1 < lengths.size() ? until[i] : 1.0, lengths[i]});
  }
  return stages;
}

at::Device device_of(const std::string& name) {
  if (name == "cpu" || (name == "auto" && !at::hasCUDA())) return at::kCPU;
  if (name != "cuda" && name != "auto")
    throw UsageError("--device " + name + ": want cpu, cuda or auto");
  if (!at::hasCUDA()) throw UsageError("--device cuda: no GPU here that torch can use");
  return at::Device(at::kCUDA, 0);
}

}  // namespace

int pretrain(int argc, char** argv, int first) {
  train::PretrainSettings s;
  DataArgs data;
  LoopArgs loop;
  std::string tokenizer = embedded_model(), config, device = "auto";
  std::vector<int64_t> lengths;
  std::vector<double> stage_ends;
  for (const auto& stage : s.stages) {
    lengths.push_back(stage.length);
    if (stage.until < 1) stage_ends.push_back(stage.until);
  }
  int threads = 0;
  Args args("pretrain", "Trains a small language model from scratch: bf16 on a GPU, f32 on a CPU.");
  data.add(args, s.data);
  loop.add(args, s.loop);
  args.group("Model");
  args.add("tokenizer", tokenizer, "folder with tokenizer.json");
  args.add("model-config", config, "a config.json; instead of the sizes");
  args.add("hidden", s.sizes.hidden, "size of the residual stream");
  args.add("layers", s.sizes.layers, "layers");
  args.add("heads", s.sizes.heads, "query heads");
  args.add("kv-heads", s.sizes.kv_heads, "key heads");
  args.add("head-dim", s.sizes.head_dim, "head size");
  args.add("intermediate", s.sizes.intermediate, "size of the gated MLP");
  args.add("rope-theta", s.sizes.rope_theta, "base of RoPE");
  args.group("Training");
  args.add("device", device, "cpu, cuda, or auto: cuda where there is one");
  args.add("threads", threads, "CPU threads; 0: all cores");
  args.add("lengths", lengths, "tokens of a window, in stages");
  args.add("stage-ends", stage_ends, "share of the steps at which each stage but the last ends");
  args.add("tokens-per-step", s.tokens_per_step, "a multiple of every length");
  args.add("micro-batch-tokens", s.micro_batch_tokens,
           "tokens in memory at once; 0: a step on a GPU, 4096 on a CPU");
  args.add("valid-tokens", s.valid_tokens, "of each held-out text");
  args.add("matrix-learning-rate", s.matrix_learning_rate, "of Muon: matrices of the layers");
  args.add("other-learning-rate", s.other_learning_rate, "of AdamW: embedding and norms");
  args.add("warmup", s.schedule.warmup, "steps of warm-up");
  args.add("constant-share", s.schedule.constant_share,
           "share of the steps after which the learning rate falls");
  args.add("final-share", s.schedule.floor, "share of the learning rate at the end");
  args.flag("deterministic", s.deterministic, "GPU: the same bits at every run; slower");
  args.add("seed", s.seed, "of weights and data");
  if (!args.parse(argc, argv, first)) return 0;
  if (threads > 0) at::set_num_threads(threads);
  data.fill(s.data);
  s.data.threads = threads;
  s.loop.out = loop.out;
  s.tokenizer = tokenizer;
  s.model_config = config;
  s.stages = stages_of(lengths, stage_ends);
  s.device = device_of(device);
  print_result("pretrain", train::pretrain(s), loop.out);
  return 0;
}

}  // namespace seer::cli
