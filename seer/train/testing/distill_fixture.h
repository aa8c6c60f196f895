#pragma once
// For tests of distillation: a small model, texts, and settings that finish soon.

#include <ATen/Parallel.h>

#include <filesystem>
#include <string>

#include "seer/base/error.h"
#include "seer/models/testing/test_model.h"
#include "seer/train/tasks/distill.h"
#include "seer/train/testing/run_fixture.h"
#include "seer/train/testing/text_fixture.h"

namespace seer::train {

inline models::Decoder test_model(int64_t window = 0) {
  auto config = models::test::small_config();
  config["vocab_size"] = 8192;
  if (window > 0) {
    config["model_type"] = "mistral";
    config["architectures"] = {"MistralForCausalLM"};
    config["sliding_window"] = window;
  }
  return models::test::small_model(config);
}

inline DistillSettings distill_settings(const std::filesystem::path& folder,
                                        const std::string& name) {
  DistillSettings settings;
  settings.loop.out = folder / name;
  settings.loop.steps = 40;
  settings.loop.save_every = 4;
  settings.loop.show_progress = false;
  settings.data.train = {folder / "train.jsonl"};
  settings.data.valid = {folder / "valid.jsonl"};
  settings.data.cache = folder / "cache";
  settings.tokenizer = reference_tokenizer();
  settings.gate.block_size = 16;
  settings.sequences = 3;
  settings.length = 200;  // the last block is not full
  settings.micro_batch = 2;
  settings.valid_sequences = 2;
  settings.learning_rate = 2e-2;
  settings.schedule.warmup = 3;
  return settings;
}

// Two of the eight heads.
inline DistillSettings lookup_settings(const std::filesystem::path& folder,
                                       const std::string& name) {
  DistillSettings settings = distill_settings(folder, name);
  settings.length = 265;
  settings.loop.steps = 12;
  settings.lookup = {.share = 0.25, .rank = 16, .windows = 2, .steps = 80, .learning_rate = 3e-3};
  return settings;
}

class DistillTest : public RunTest {
 protected:
  void SetUp() override {
    RunTest::SetUp();
    at::set_num_threads(1);  // too little work for more
    write_documents(folder / "train.jsonl", 20, 60, 1);
    write_documents(folder / "valid.jsonl", 3, 60, 900);
  }
  std::string error_of(const models::Decoder& model, const DistillSettings& wrong) {
    try {
      distill(model, tokenizer, wrong);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  io::Tokenizer tokenizer = io::Tokenizer::load(reference_tokenizer());
};

}  // namespace seer::train
