// seer distill: the gates of a model.

#include "seer/train/tasks/distill.h"

#include "seer/cli/data_args.h"
#include "seer/cli/methods.h"
#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"

namespace seer::cli {
namespace {

const std::vector<std::string> kOfLookupHeads{"lookup-rank", "lookup-windows", "lookup-steps",
                                              "lookup-learning-rate"};

}  // namespace

int distill(int argc, char** argv, int first) {
  ModelArgs model_args;
  GateArgs gate;
  train::DistillSettings s;
  RankArgs processes;
  Args args("distill",
            "Trains a model's gates on its own attention maps; the model stays as it is. With "
            "several GPUs or machines: torchrun --no-python seer distill ...");
  model_args.add(args);
  add_data(args, s.data);
  add_loop(args, s.loop);
  args.group("Gate");
  args.add("gates", s.gates,
           "folder of gates that get lookup heads and else stay as they are; default: new ones");
  args.flag("foreign-gates", s.foreign_gates,
            "use them though they were made for a model of other weights or RoPE");
  gate.add(args);
  args.group("Training");
  args.add_each(s);
  processes.add(args);
  args.when_read([&] {
    if (s.states_on_host && !model_args.stream) {
      throw UsageError("--states-on-host: hidden states wait in host memory only with --stream");
    }
    if (s.gates.empty()) {
      refuse(args, {"foreign-gates"}, "without --gates");
    } else {
      refuse(args, kOfNewGates, "beside --gates");
      refuse(args, {"steps", "learning-rate"},
             "beside --gates, whose weights stay: see --lookup-steps");
    }
    if (s.data.valid.empty()) refuse(args, {"valid-every", "valid-sequences"}, "without --valid");
    train::check(s.lookup);
    if (s.lookup.share == 0) refuse(args, kOfLookupHeads, "with --lookup-heads 0");
    if (s.lookup.steps == 0) refuse(args, {"lookup-learning-rate"}, "without --lookup-steps");
  });
  if (!args.parse(argc, argv, first)) return 0;
  s.gate = gate.config;
  s.tokenizer = model_args.model;
  s.data.threads = model_args.threads;
  // What can be refused before processes wait for each other and the model is loaded.
  const auto config = io::ModelConfig::read(model_args.model);
  if (!s.gates.empty()) s.gate = find_gates(s.gates.string(), config).config;
  train::check(s, config);
  const double share = train::lookup_share(s.lookup, config, s.gate.block_size, s.length).share;
  settle_device(
      model_args, config,
      {.gates = true, .map = true, .trains = true, .lookup_rank = share > 0 ? s.lookup.rank : 0},
      s.gate.block_size);
  const auto ranks = processes.start(model_args.resolved_device());
  s.loop.ranks = ranks.get();
  s.data.show_progress = ranks->is_first();
  const models::Decoder model = model_args.load();
  const train::DistillResult result = train::distill(model, model_args.tokenizer(), s);
  if (!ranks->is_first()) return 0;
  if (s.gates.empty() || s.lookup.steps > 0) {
    print_result("distill", result, s.loop.out);
  } else {
    print_line("written: " + s.loop.out.string(), stdout);
  }
  if (result.lookup && s.gates.empty() && s.lookup.steps > 0) {
    print_result("distill: lookup heads", *result.lookup, s.loop.out / "lookup");
  }
  return 0;
}

}  // namespace seer::cli
