// seer finetune: all weights of a model at a longer context.

#include "seer/train/tasks/finetune.h"

#include <string>
#include <vector>

#include "seer/cli/data_args.h"
#include "seer/cli/methods.h"
#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"
#include "seer/kernels/size_limits.h"

namespace seer::cli {
namespace {

static_assert(train::kMostForcedBlocks == kernels::kMostBlocks);

using Names = std::vector<std::string>;

const Names kOfSparseTraining{"gates",
                              "foreign-gates",
                              "rule",
                              "density",
                              "strength",
                              "sink-blocks",
                              "local-blocks",
                              "last-dense-rows",
                              "gate-loss",
                              "gate-skip",
                              "gate-loss-weight",
                              "gate-every",
                              "gate-learning-rate"};
}  // namespace

int finetune(int argc, char** argv, int first) {
  train::FinetuneSettings s;
  ModelArgs model;
  GateArgs gate;
  RankArgs processes;
  Args args("finetune",
            "Trains all weights of a model at a longer context, stretched by YaRN, with dense or "
            "block-sparse attention and its gates: bf16 on a GPU, f32 on a CPU. With several GPUs "
            "or machines: torchrun --no-python seer finetune ...");
  args.add("model", model.model, "folder of the model, with its tokenizer");
  model.add_device(args, "auto: cuda where there is one");
  model.add_threads(args);
  add_data(args, s.data);
  add_loop(args, s.loop);
  args.group("Training");
  args.add_each(s);
  args.group("Gate");
  args.add("gates", s.gates, "folder of the model's gates to begin with; default: new ones");
  args.flag("foreign-gates", s.foreign_gates,
            "use gates though they were made for a model of other weights or RoPE");
  gate.add(args);
  processes.add(args);
  args.when_read([&] {
    check_model_folder("model", model.model);
    s.model = model.model;
    s.gate = s.gates.empty()
                 ? gate.config
                 : find_gates(s.gates.string(), io::ModelConfig::read(model.model)).config;
    refuse(args, s.is_by_density() ? Names{"strength"} : Names{"density"},
           "beside --rule " + s.rule);
    if (!s.is_sparse()) refuse(args, kOfSparseTraining, "beside --attention dense");
    if (s.gates.empty()) refuse(args, {"foreign-gates"}, "without --gates");
    if (s.data.valid.empty()) refuse(args, {"valid-every", "valid-sequences"}, "without --valid");
    if (!s.is_muon()) refuse(args, {"matrix-learning-rate"}, "beside --optimizer adamw");
    if (!s.gates.empty() || !s.is_sparse()) {
      refuse(args, kOfNewGates, s.is_sparse() ? "beside --gates" : "beside --attention dense");
    }
    train::check(s);
  });
  if (!args.parse(argc, argv, first)) return 0;
  set_threads(model.threads);
  s.data.threads = model.threads;
  const auto config = io::ModelConfig::read(model.model);
  s.gate.check(config.head_dim);
  model.any_gpu = !s.is_sparse();
  model.block = s.gate.block_size;
  s.device = model.resolved_device();
  model.dtype = s.device.is_cuda() ? "bf16" : "f32";
  if (s.is_sparse()) {
    settle_device(model, config,
                  {.gates = true,
                   .sparse = true,
                   .map = true,
                   .trains = true,
                   .lookup_rank = s.gate.lookup_rank},
                  s.gate.block_size);
  }
  const auto ranks = processes.start(s.device);
  s.loop.ranks = ranks.get();
  s.data.show_progress = ranks->is_first();
  const train::RunResult result = train::finetune(s);
  if (ranks->is_first()) print_result("finetune", result, s.loop.out);
  return 0;
}

}  // namespace seer::cli
