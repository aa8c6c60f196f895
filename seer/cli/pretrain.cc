// seer pretrain: a small language model from scratch.

#include "seer/train/tasks/pretrain.h"

#include "seer/base/file.h"
#include "seer/cli/data_args.h"
#include "seer/cli/settings.h"
#include "seer/cli/verbs.h"

namespace seer::cli {

int pretrain(int argc, char** argv, int first) {
  train::PretrainSettings s;
  ModelArgs model;
  model.any_gpu = true;
  s.tokenizer = embedded_model();
  RankArgs processes;
  Args args("pretrain",
            "Trains a small language model from scratch: bf16 on a GPU, f32 on a CPU. With several "
            "GPUs or machines: torchrun --no-python seer pretrain ...");
  add_data(args, s.data);
  add_loop(args, s.loop);
  args.group("Model");
  args.add("tokenizer", s.tokenizer, "folder with tokenizer.json");
  args.add("model-config", s.model_config, "a config.json; instead of the sizes");
  args.add_each(s.sizes);
  args.group("Training");
  model.add_device(args, "auto: cuda where there is one");
  model.add_threads(args);
  args.add_each(s);
  processes.add(args);
  args.when_read([&] {
    check_model_folder("tokenizer", s.tokenizer);
    if (!s.model_config.empty()) {
      check_input(s.model_config);
      std::vector<std::string> sizes;
      each_setting(s.sizes, [&](const char* name, auto&&...) { sizes.emplace_back(name); });
      refuse(args, sizes, "beside --model-config");
    }
    if (s.lengths.size() == 1) refuse(args, {"stage-ends"}, "with one length in --lengths");
    if (s.data.valid.empty()) refuse(args, {"valid-every", "valid-tokens"}, "without --valid");
    train::check(s);
  });
  if (!args.parse(argc, argv, first)) return 0;
  set_threads(model.threads);
  s.data.threads = model.threads;
  s.device = model.resolved_device();
  const auto ranks = processes.start(s.device);
  s.loop.ranks = ranks.get();
  s.data.show_progress = ranks->is_first();
  const train::RunResult result = train::pretrain(s);
  if (ranks->is_first()) print_result("pretrain", result, s.loop.out);
  return 0;
}

}  // namespace seer::cli
