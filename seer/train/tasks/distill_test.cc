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
#include "seer/models/testing/test_model.h"
#include "seer/train/testing/run_fixture.h"
#include "seer/train/testing/text_fixture.h"

namespace seer::train {
namespace {

using ::testing::HasSubstr;

models::Decoder test_model(int64_t window = 0) {
  auto config = models::test::small_config();
  config["vocab_size"] = 8192;
  if (window > 0) {
    config["model_type"] = "mistral";
    config["architectures"] = {"MistralForCausalLM"};
    config["sliding_window"] = window;
  }
  return models::test::small_model(config);
}

DistillSettings distill_settings(const std::filesystem::path& folder, const std::string& name) {
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
DistillSettings lookup_settings(const std::filesystem::path& folder, const std::string& name) {
  DistillSettings settings = distill_settings(folder, name);
  settings.length = 265;
  settings.loop.steps = 12;
  settings.lookup = {.share = 0.25, .rank = 16, .windows = 2, .steps = 80, .learning_rate = 3e-3};
  return settings;
}

class Distill : public RunTest {
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

TEST_F(Distill, LookupHeadsAreTheNeediestAndLearn) {
  const auto model = test_model();
  DistillSettings run = lookup_settings(folder, "with");
  const DistillResult result = distill(model, tokenizer, run);
  ASSERT_TRUE(result.lookup);
  EXPECT_EQ(result.lookup->steps, 80);
  DistillSettings begin = lookup_settings(folder, "begin");
  begin.lookup.learning_rate = 1e-12;
  const auto of_valid = [](const DistillResult& x) {
    return x.lookup->valid.at("kl_per_row_valid");
  };
  EXPECT_LT(of_valid(result), 0.97 * of_valid(distill(model, tokenizer, begin)));

  run.loop.out = folder / "without";
  run.lookup = {};
  EXPECT_FALSE(distill(model, tokenizer, run).lookup);
  EXPECT_FALSE(std::filesystem::exists(folder / "without" / "heads.json"));
  const auto with = models::Gates::load(folder / "with", model),
             without = models::Gates::load(folder / "without", model);
  int heads = 0;
  for (size_t layer = 0; layer < 2; ++layer) {
    EXPECT_TRUE(at::equal(with.layers()[layer].k, without.layers()[layer].k));
    heads += static_cast<int>(with.config().lookup_heads.at(layer).size());
  }
  EXPECT_EQ(heads, 2);

  const auto found = nlohmann::json::parse(read_file(folder / "with" / "heads.json"));
  std::vector<double> of_others, of_lookups;
  for (size_t layer = 0; layer < 2; ++layer) {
    const auto& chosen = with.config().lookup_heads[layer];
    for (int head = 0; head < 4; ++head) {
      const bool is_one = std::find(chosen.begin(), chosen.end(), head) != chosen.end();
      (is_one ? of_lookups : of_others).push_back(found["lost"][layer][head]);
    }
  }
  EXPECT_GE(*std::min_element(of_lookups.begin(), of_lookups.end()),
            *std::max_element(of_others.begin(), of_others.end()));
  EXPECT_EQ(found["lookup_heads"], nlohmann::json(with.config().lookup_heads));
}

TEST_F(Distill, GatesThatAreThereGetLookupHeads) {
  const auto model = test_model();
  DistillSettings run = lookup_settings(folder, "gates");
  run.lookup = {};
  distill(model, tokenizer, run);
  run = lookup_settings(folder, "with");
  run.gates = folder / "gates";
  run.gate.block_size = 64;  // that of the folder counts
  const DistillResult result = distill(model, tokenizer, run);
  EXPECT_EQ(result.steps, 80);
  const auto before = models::Gates::load(folder / "gates", model),
             after = models::Gates::load(folder / "with", model);
  EXPECT_EQ(after.config().block_size, 16);
  EXPECT_GT(after.config().lookup_rank, 0);
  for (size_t layer = 0; layer < 2; ++layer) {
    EXPECT_TRUE(at::equal(after.layers()[layer].k, before.layers()[layer].k));
  }
  EXPECT_TRUE(std::filesystem::exists(folder / "with" / "heads.json"));

  run.loop.out = folder / "again";
  run.gates = folder / "with";
  EXPECT_THAT(error_of(model, run), HasSubstr("has lookup heads already"));
  run.gates = folder / "gates";
  run.lookup.share = 0;
  EXPECT_THAT(error_of(model, run), HasSubstr("give --lookup-heads the share"));
}

TEST_F(Distill, WhatAnotherHasLeftAsHeadsIsKept) {
  std::filesystem::create_directories(folder / "a");
  write_file_atomic(folder / "a" / "heads.json", "mine");
  EXPECT_THAT(error_of(test_model(), lookup_settings(folder, "a")), HasSubstr("heads.json"));
  EXPECT_EQ(read_file(folder / "a" / "heads.json"), "mine");
}

TEST_F(Distill, WrongLookupHeadsAreNamed) {
  const auto model = test_model();
  DistillSettings wrong = lookup_settings(folder, "a");
  wrong.length = 200;
  EXPECT_THAT(error_of(model, wrong), HasSubstr("200 tokens is too short to find lookup heads"));
  wrong = lookup_settings(folder, "b");
  wrong.lookup.rank = 32;
  EXPECT_THAT(error_of(model, wrong), HasSubstr("32"));
  EXPECT_FALSE(std::filesystem::exists(folder / "b"));
  wrong.lookup.rank = 20;
  EXPECT_THAT(error_of(model, wrong), HasSubstr("lookup-rank is 20"));
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
