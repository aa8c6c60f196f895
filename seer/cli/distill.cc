// seer distill: the gates of a model.

#include "seer/train/distill.h"

#include "seer/cli/data_args.h"
#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"

namespace seer::cli {

int distill(int argc, char** argv, int first) {
  ModelArgs model_args;
  GateArgs gate;
  DataArgs data;
  LoopArgs loop;
  train::DistillSettings s;
  Args args("distill",
            "Trains a model's gates on its own attention maps; the model stays as it is. With "
            "several GPUs or machines: torchrun --no-python seer distill ...");
  model_args.add(args);
  data.add(args, s.data);
  loop.add(args, s.loop);
  gate.add(args);
  args.group("Training");
  args.add("length", s.length, "tokens of a sequence");
  args.add("sequences", s.sequences, "sequences of a step");
  args.add("micro-batch", s.micro_batch, "sequences that are run at once");
  args.flag("states-on-host", s.states_on_host,
            "with --stream: hidden states wait in host memory between layers");
  args.add("valid-sequences", s.valid_sequences, "sequences of each held-out text");
  args.add("loss", s.loss, "kl, or mse (of the paper's first version)");
  args.add("skip", s.skip, "share of the first block rows without loss; -1: 1/4 for kl, 0 for mse");
  args.add("loss-scale", s.loss_scale, "factor of the loss summed over layers");
  args.add("learning-rate", s.learning_rate, "largest learning rate of AdamW");
  args.add("warmup", s.schedule.warmup, "steps of warm-up, then cosine to 0");
  args.add("weight-decay", s.adamw.weight_decay, "of AdamW, decoupled");
  args.add("seed", s.seed, "of the gates' first weights and the order of the data");
  if (!args.parse(argc, argv, first)) return 0;
  data.fill(s.data);
  s.gate = gate.config;
  model_args.block = gate.config.block_size;
  s.loop.out = loop.out;
  s.tokenizer = model_args.model;
  s.data.threads = model_args.threads;
  const auto ranks = train::Ranks::from_environment(model_args.resolved_device());
  s.loop.ranks = ranks.get();
  s.data.show_progress = ranks->is_first();
  const models::Decoder model = model_args.load();
  const train::RunResult result = train::distill(model, model_args.tokenizer(), s);
  if (ranks->is_first()) print_result("distill", result, loop.out);
  return 0;
}

}  // namespace seer::cli
