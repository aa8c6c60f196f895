#include "seer/train/tasks/distill.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/models/gates/gates.h"
#include "seer/train/testing/distill_fixture.h"

namespace seer::train {
namespace {

using ::testing::HasSubstr;

using Distill = DistillTest;

TEST_F(Distill, LossFallsAndGatesLoad) {
  const auto model = test_model();
  for (const char* loss : {"kl", "mse"}) {
    DistillSettings run = distill_settings(folder, loss);
    run.loss = loss;
    const RunResult result = distill(model, tokenizer, run);
    const auto lines = metrics_of(folder / loss);
    const double first = lines[0]["loss"];
    // A random model's maps are hard to foresee: what can be learned is learned soon.
    EXPECT_LT(result.loss, 0.9 * first) << loss;
    EXPECT_LT(result.valid.at("loss_valid"), 0.9 * first) << loss;
    const auto gates = models::Gates::load(folder / loss, model);
    EXPECT_EQ(gates.config().block_size, 16);
  }
}

TEST_F(Distill, KlPerRowIsTheLossTimesTheBlocks) {
  const auto model = test_model();
  DistillSettings run = distill_settings(folder, "a");
  run.loop.steps = 1;
  distill(model, tokenizer, run);
  const auto line = metrics_of(folder / "a")[0];
  // 2 layers, 13 blocks; the loss is 10 times the sum over layers.
  EXPECT_NEAR(line["kl_per_row"].get<double>(), line["loss"].get<double>() / 10 / 2 * 13, 1e-9);
}

TEST_F(Distill, MicroBatchesChangeOnlyTheRounding) {
  const auto model = test_model();
  DistillSettings run = distill_settings(folder, "a");
  run.loop.steps = 1;
  run.micro_batch = 3;
  const RunResult whole = distill(model, tokenizer, run);
  run.loop.out = folder / "b";
  run.micro_batch = 1;
  EXPECT_NEAR(distill(model, tokenizer, run).loss, whole.loss, 1e-6 * whole.loss);
  EXPECT_NEAR(metrics_of(folder / "a")[0]["grad_norm"].get<double>(),
              metrics_of(folder / "b")[0]["grad_norm"].get<double>(), 1e-6);
}

TEST_F(Distill, LayerByLayerChangesOnlyTheRounding) {
  DistillSettings run = distill_settings(folder, "a");
  run.loop.steps = 5;
  const auto model = test_model();
  const RunResult whole = distill(model, tokenizer, run);
  auto streamed = test_model();
  streamed.stream_layers();
  for (const bool states_on_host : {false, true}) {
    run.loop.out = folder / (states_on_host ? "c" : "b");
    run.states_on_host = states_on_host;
    run.micro_batch = 1;
    const RunResult result = distill(streamed, tokenizer, run);
    EXPECT_NEAR(result.loss, whole.loss, 1e-4 * whole.loss);
    EXPECT_NEAR(result.valid.at("loss_valid"), whole.valid.at("loss_valid"), 1e-4 * whole.loss);
  }
}

TEST_F(Distill, StatesWaitOnTheHostOnlyWhereLayersAreStreamed) {
  DistillSettings run = distill_settings(folder, "a");
  run.states_on_host = true;
  EXPECT_THAT(error_of(test_model(), run), HasSubstr("add --stream"));
}

TEST_F(Distill, TheModelItselfDoesNotChange) {
  auto model = test_model();
  std::vector<at::Tensor> before;
  for (const auto& [name, weight] : models::named_weights(model.weights())) {
    before.push_back(weight->clone());
  }
  DistillSettings run = distill_settings(folder, "a");
  run.loop.steps = 3;
  distill(model, tokenizer, run);
  size_t i = 0;
  for (const auto& [name, weight] : models::named_weights(model.weights())) {
    EXPECT_TRUE(at::equal(*weight, before[i++])) << name;
    EXPECT_FALSE(weight->grad().defined()) << name;
  }
}

TEST_F(Distill, TextInMemoryIsEnough) {
  const auto model = test_model();
  DistillSettings run = distill_settings(folder, "a");
  run.data = {};
  const auto tokens = tokenizer.encode(generated_text(100, 1), false);
  const RunResult result = distill(model, tokens, tokenizer, run);
  EXPECT_LT(result.loss, metrics_of(folder / "a")[0]["loss"].get<double>());
}

TEST_F(Distill, BrokenDocumentsAreSkippedAndCounted) {
  const auto model = test_model();
  DistillSettings run = distill_settings(folder, "clean");
  run.loop.steps = 2;
  EXPECT_EQ(distill(model, tokenizer, run).skipped_documents, 0);
  for (const char* name : {"train.jsonl", "valid.jsonl"}) {
    write_file_atomic(folder / name, "{\n" + read_file(folder / name) + "{\"text\": \"\xFF\"}\n");
  }
  run.loop.out = folder / "broken";
  for (int runs = 0; runs < 2; ++runs) {  // the second finds all done
    EXPECT_EQ(distill(model, tokenizer, run).skipped_documents, 4);
  }
  EXPECT_EQ(read_file(folder / "clean" / "attn_gate_weights.safetensors"),
            read_file(folder / "broken" / "attn_gate_weights.safetensors"));
  EXPECT_EQ(metrics_of(folder / "clean"), metrics_of(folder / "broken"));
  const auto settings = nlohmann::json::parse(read_file(folder / "broken" / "run.json"));
  EXPECT_EQ(settings["settings"]["data"][0]["skipped_documents"], 2);
}

TEST_F(Distill, WrongSettingsAreNamed) {
  const auto model = test_model();
  DistillSettings wrong = distill_settings(folder, "a");
  wrong.loss = "l1";
  EXPECT_THAT(error_of(model, wrong), HasSubstr("loss is l1, want kl or mse"));
  wrong = distill_settings(folder, "a");
  wrong.length = 1 << 20;
  EXPECT_THAT(error_of(model, wrong), HasSubstr("fewer than one window"));
  EXPECT_THAT(error_of(test_model(64), distill_settings(folder, "b")),
              HasSubstr("there is no gate to train"));
}

TEST_F(Distill, AnotherModelIsNotResumed) {
  DistillSettings run = distill_settings(folder, "a");
  run.loop.steps = 1;
  distill(test_model(), tokenizer, run);
  auto config = models::test::small_config();
  config["vocab_size"] = 8192;
  EXPECT_THAT(error_of(models::test::small_model(config, 77), run),
              HasSubstr("other settings: settings.weights"));
}

TEST_F(Distill, KilledAndResumedEndsWithTheSameBits) {
  expect_kills_change_nothing("DistillChild.DISABLED_Run", folder, "attn_gate_weights.safetensors");
  EXPECT_EQ(metrics_of(folder / "killed" / "lookup"), metrics_of(folder / "whole" / "lookup"));
}

TEST(DistillChild, DISABLED_Run) {
  ASSERT_FALSE(child_out().empty());
  at::set_num_threads(1);
  distill(test_model(), io::Tokenizer::load(reference_tokenizer()),
          lookup_settings(child_out().parent_path(), child_out().filename()));
}

}  // namespace
}  // namespace seer::train
