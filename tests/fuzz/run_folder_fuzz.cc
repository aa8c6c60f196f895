// The folder of a training run: run.json, metrics.jsonl, a checkpoint.

#include "seer/train/loop/run_folder.h"

#include <ATen/ops/zeros.h>

#include "tests/fuzz/fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace seer;
  static const at::Tensor weight = at::zeros({2, 1});
  const nlohmann::json settings = {{"task", "distill"}, {"loop", {{"steps", 6}}}};
  std::string_view rest = fuzz::view(data, size);
  const std::filesystem::path run = fuzz::folder() / "run";
  std::filesystem::remove_all(run);
  std::filesystem::create_directories(run / "checkpoints");
  fuzz::write("run/run.json", fuzz::next_part(rest));
  fuzz::write("run/metrics.jsonl", fuzz::next_part(rest));
  fuzz::write("run/checkpoints/step-00000003.safetensors", rest);
  fuzz::expect_answer([&] {
    train::RunFolder folder(run, settings, /*restart=*/false);
    folder.resume({{"w", weight}}, 6, [](const std::string&) {});
  });
  return 0;
}
