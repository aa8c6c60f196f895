#include "seer/train/tasks/pretrain.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <csignal>

#include "seer/base/error.h"
#include "seer/base/interrupt.h"
#include "seer/models/decoder.h"
#include "seer/train/testing/run_fixture.h"
#include "seer/train/testing/text_fixture.h"

namespace seer::train {
namespace {

using ::testing::HasSubstr;

// A model of two layers on generated text, in two stages of length.
PretrainSettings pretrain_settings(const std::filesystem::path& folder, const std::string& name) {
  PretrainSettings settings;
  settings.loop.out = folder / name;
  settings.loop.steps = 30;
  settings.loop.save_every = 4;
  settings.loop.valid_every = 15;
  settings.loop.show_progress = false;
  settings.data.train = {folder / "train.jsonl"};
  settings.data.valid = {folder / "valid.jsonl"};
  settings.data.cache = folder / "cache";
  settings.tokenizer = reference_tokenizer();
  settings.sizes = {32, 2, 2, 1, 16, 48, 10000, 1e-5};
  settings.lengths = {64, 256};
  settings.stage_ends = {0.4};
  settings.tokens_per_step = 512;
  settings.micro_batch_tokens = 300;  // several windows at once, then one
  settings.valid_tokens = 1024;
  settings.schedule.warmup = 3;
  return settings;
}

class Pretrain : public RunTest {
 protected:
  void SetUp() override {
    RunTest::SetUp();
    at::set_num_threads(1);  // too little work for more
    write_documents(folder / "train.jsonl", 30, 60, 1);
    write_documents(folder / "valid.jsonl", 3, 60, 900);
  }
};

TEST_F(Pretrain, LossFallsAndTheModelLoads) {
  const RunResult result = pretrain(pretrain_settings(folder, "a"));
  const auto lines = metrics_of(folder / "a");
  const double first = lines[0]["loss"];
  EXPECT_NEAR(first, std::log(8192), 0.1) << "an untrained model knows nothing";
  EXPECT_LT(result.loss, first - 3);
  EXPECT_LT(result.valid.at("valid"), first - 3);
  EXPECT_EQ(result.tokens, 30 * 512);

  const auto model = models::Decoder::load(folder / "a", at::kFloat, at::kCPU);
  EXPECT_EQ(model.config().num_layers, 2);
  EXPECT_TRUE(model.config().tied_embeddings);
  const auto tokenizer = io::Tokenizer::load(folder / "a");
  // The saved model (bf16) predicts held-out text about as well as the trained one.
  const auto text = tokenizer.encode(generated_text(60, 900), true);
  const auto length = std::min<int64_t>(256, static_cast<int64_t>(text.size()) - 1);
  const std::vector<int64_t> ids(text.begin(), text.begin() + length + 1);
  const at::Tensor tokens = at::tensor(ids, at::kLong);
  const at::NoGradGuard no_grad;
  const at::Tensor logits = model.logits(
      model.hidden(tokens.narrow(0, 0, length), {{length}, {length}}, models::dense_attention));
  const double loss = at::cross_entropy_loss(logits, tokens.narrow(0, 1, length)).item<double>();
  EXPECT_NEAR(loss, result.valid.at("valid"), 0.3);
}

TEST_F(Pretrain, AllFilesOfTheTokenizerGoWithTheModel) {
  PretrainSettings run = pretrain_settings(folder, "a");
  run.loop.steps = 1;
  run.tokenizer = folder / "tokenizer";
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    write_file_atomic(run.tokenizer / name, read_file(reference_tokenizer() / name));
  }
  write_file_atomic(run.tokenizer / "added_tokens.json", R"({"<|late|>": 8200})");
  write_file_atomic(run.tokenizer / "chat_template.jinja", "{{ messages[0].content }}");
  pretrain(run);
  const auto tokenizer = io::Tokenizer::load(folder / "a");
  EXPECT_EQ(tokenizer.encode("<|late|>", false), std::vector<int32_t>{8200});
  EXPECT_TRUE(tokenizer.chat_template().has_value());
}

TEST_F(Pretrain, SameSeedSameBitsAndAnotherSeedDiffers) {
  PretrainSettings short_run = pretrain_settings(folder, "a");
  short_run.loop.steps = 4;
  pretrain(short_run);
  short_run.loop.out = folder / "b";
  pretrain(short_run);
  short_run.loop.out = folder / "c";
  short_run.seed = 2;
  pretrain(short_run);
  const auto model = [&](const char* name) {
    return read_file(folder / name / "model.safetensors");
  };
  EXPECT_EQ(model("a"), model("b"));
  EXPECT_EQ(metrics_of(folder / "a"), metrics_of(folder / "b"));
  EXPECT_NE(model("a"), model("c"));
}

TEST_F(Pretrain, MicroBatchesChangeOnlyTheRounding) {
  PretrainSettings one = pretrain_settings(folder, "a");
  one.loop.steps = 1;
  one.micro_batch_tokens = 512;
  const double whole = pretrain(one).loss;
  one.loop.out = folder / "b";
  one.micro_batch_tokens = 64;
  EXPECT_NEAR(pretrain(one).loss, whole, 1e-5);
  EXPECT_NEAR(metrics_of(folder / "a")[0]["grad_norm"].get<double>(),
              metrics_of(folder / "b")[0]["grad_norm"].get<double>(), 1e-4);
}

TEST_F(Pretrain, Bf16WithMasterWeightsFollowsF32) {
  PretrainSettings wide = pretrain_settings(folder, "a"), narrow = pretrain_settings(folder, "b");
  narrow.dtype = at::kBFloat16;
  const double want = pretrain(wide).valid.at("valid"), got = pretrain(narrow).valid.at("valid");
  EXPECT_NEAR(got, want, 0.1);
  const auto a = metrics_of(folder / "a"), b = metrics_of(folder / "b");
  EXPECT_NE(a.back(), b.back()) << "bf16 was not used";
  EXPECT_NEAR(b[0]["grad_norm"].get<double>(), a[0]["grad_norm"].get<double>(),
              0.02 * a[0]["grad_norm"].get<double>());
}

TEST_F(Pretrain, WrongSettingsAreNamed) {
  const auto error_of = [](const PretrainSettings& wrong) -> std::string {
    try {
      pretrain(wrong);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  };
  PretrainSettings wrong = pretrain_settings(folder, "a");
  wrong.tokens_per_step = 500;
  EXPECT_THAT(error_of(wrong), HasSubstr("want a multiple of every length"));
  wrong = pretrain_settings(folder, "a");
  wrong.lengths = {1 << 20};
  wrong.tokens_per_step = 1 << 20;
  wrong.valid_tokens = int64_t{1} << 30;
  EXPECT_THAT(error_of(wrong), HasSubstr("fewer than one window"));
  wrong = pretrain_settings(folder, "a");
  wrong.data.train = {folder / "nothing.txt"};
  EXPECT_THAT(error_of(wrong), HasSubstr("nothing.txt"));
}

// Sends this process SIGINT in the nth sum.
class StopsAt : public Ranks {
 public:
  explicit StopsAt(int n) : left_(n) {}
  void start_sum(const at::Tensor&) override {
    if (--left_ == 0) std::raise(SIGINT);
  }

 private:
  int left_;
};

TEST_F(Pretrain, StoppedAheadOfAValidationEndsWithTheSameResults) {
  PretrainSettings settings = pretrain_settings(folder, "whole");
  settings.loop.steps = 20;
  const RunResult whole = pretrain(settings);
  settings.loop.out = folder / "stopped";
  StopsAt step_15(1 + 15);  // the first sum is asked for before the first step
  settings.loop.ranks = &step_15;
  EXPECT_THROW(pretrain(settings), Interrupted);
  settings.loop.ranks = nullptr;
  const RunResult resumed = pretrain(settings);
  EXPECT_EQ(resumed.resumed_from, 15);
  EXPECT_EQ(resumed.valid, whole.valid);
  EXPECT_EQ(metrics_of(folder / "stopped"), metrics_of(folder / "whole"));
}

TEST_F(Pretrain, StoppedAfterTheLastStepSavesTheModel) {
  PretrainSettings settings = pretrain_settings(folder, "stopped");
  settings.loop.steps = 2;
  StopsAfterRun first(1);
  settings.loop.ranks = &first;
  EXPECT_THROW(pretrain(settings), Interrupted);
  EXPECT_TRUE(std::filesystem::exists(folder / "stopped" / "model.safetensors"));
  settings.loop.ranks = nullptr;
  EXPECT_EQ(pretrain(settings).resumed_from, 2);
}

TEST_F(Pretrain, KilledAndResumedEndsWithTheSameBits) {
  expect_kills_change_nothing("PretrainChild.DISABLED_Run", folder, "model.safetensors");
}

TEST(PretrainChild, DISABLED_Run) {
  ASSERT_FALSE(child_out().empty());
  at::set_num_threads(1);
  pretrain(pretrain_settings(child_out().parent_path(), child_out().filename()));
}

}  // namespace
}  // namespace seer::train
