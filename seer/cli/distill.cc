// seer distill: the gates of a model.

#include "seer/train/tasks/distill.h"

#include "seer/base/limits.h"
#include "seer/cli/data_args.h"
#include "seer/cli/methods.h"
#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"

namespace seer::cli {

int distill(int argc, char** argv, int first) {
  ModelArgs model_args;
  GateArgs gate;
  DataArgs data;
  LoopArgs loop;
  train::DistillSettings s;
  RankArgs processes;
  int64_t warmup = -1;
  Args args("distill",
            "Trains a model's gates on its own attention maps; the model stays as it is. With "
            "several GPUs or machines: torchrun --no-python seer distill ...");
  model_args.add(args);
  data.add(args, s.data);
  loop.add(args, s.loop);
  gate.add(args);
  args.group("Training");
  args.add("length", s.length, range(2, limits::kTokens), "tokens of a sequence");
  args.add("sequences", s.sequences, range(1, limits::kSequences), "sequences of a step");
  args.add("micro-batch", s.micro_batch, range(1, limits::kSequences),
           "sequences that are run at once");
  args.flag("states-on-host", s.states_on_host,
            "with --stream: hidden states wait in host memory between layers");
  args.add("valid-sequences", s.valid_sequences, range(1, limits::kSequences),
           "sequences of each held-out text");
  args.add("loss", s.loss, one_of({"kl", "mse"}), "mse: that of the paper's first version");
  args.add("skip", s.skip, or_automatic(below(0, 1), -1),
           "share of the first block rows without loss; -1: 1/4 for kl, 0 for mse");
  args.add("loss-scale", s.loss_scale, above(0, 1e9), "factor of the loss summed over layers");
  args.add("learning-rate", s.learning_rate, above(0, 100), "largest learning rate of AdamW");
  args.add("warmup", warmup, or_automatic(range(0, limits::kSteps), -1),
           "steps of warm-up, then cosine to 0; -1: 20, at most a sixth of all");
  args.add("weight-decay", s.adamw.weight_decay, range(0, 100), "of AdamW, decoupled");
  args.add("seed", s.seed, at_least(0), "of the gates' first weights and the order of the data");
  processes.add(args);
  args.when_read([&] {
    if (s.states_on_host && !model_args.stream) {
      throw UsageError("--states-on-host: hidden states wait in host memory only with --stream");
    }
  });
  if (!args.parse(argc, argv, first)) return 0;
  if (warmup != -1) s.schedule.warmup = warmup;
  data.fill(s.data);
  s.gate = gate.config;
  s.loop.out = loop.out;
  s.tokenizer = model_args.model;
  s.data.threads = model_args.threads;
  // What can be refused before processes wait for each other and the model is loaded.
  const auto config = io::ModelConfig::read(model_args.model);
  s.gate.check(config.head_dim);
  train::check(s);
  settle_device(model_args, config, {.trained = false, .gates = true, .sparse = false, .map = true},
                s.gate.block_size);
  const auto ranks = processes.start(model_args.resolved_device());
  s.loop.ranks = ranks.get();
  s.data.show_progress = ranks->is_first();
  const models::Decoder model = model_args.load();
  const train::RunResult result = train::distill(model, model_args.tokenizer(), s);
  if (ranks->is_first()) print_result("distill", result, loop.out);
  return 0;
}

}  // namespace seer::cli
