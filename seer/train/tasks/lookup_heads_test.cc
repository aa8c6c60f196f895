// Lookup heads that distillation finds and trains: which, their run beside that of their gates, and what is refused.

#include "seer/train/tasks/lookup_heads.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <vector>

#include "seer/base/file_lock.h"
#include "seer/base/interrupt.h"
#include "seer/train/testing/distill_fixture.h"

namespace seer::train {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::Not;

using LookupHeads = DistillTest;

// Trained for a moment.
DistillSettings quick(const fs::path& folder, const std::string& name) {
  DistillSettings settings = lookup_settings(folder, name);
  settings.loop.steps = settings.lookup.steps = settings.lookup.windows = 1;
  settings.sequences = settings.valid_sequences = 1;
  return settings;
}

TEST_F(LookupHeads, LookupHeadsAreTheNeediestAndLearn) {
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
  EXPECT_LT(of_valid(result), 0.98 * of_valid(distill(model, tokenizer, begin)));

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

// Of 24 heads of 64 features.
io::ModelConfig shape() {
  io::ModelConfig model;
  model.num_layers = 4;
  model.num_heads = 6;
  model.head_dim = 64;
  return model;
}

TEST(LookupShare, IsWhatACostAllows) {
  // Two products of 32 features for each pair of tokens; attention: four of 64 for a tenth of the pairs, in every head.
  EXPECT_DOUBLE_EQ(lookup_cost(1, 32, 64, 0.1), 2 * 32 / (4 * 64 * 0.1));
  const auto heads_at = [](double cost, int rank) {
    const LookupSettings settings{.cost = cost, .rank = rank};
    return 24 * lookup_share(settings, shape(), 64, 8192).share;
  };
  EXPECT_DOUBLE_EQ(heads_at(lookup_cost(0.125, 32, 64), 32), 3);
  EXPECT_DOUBLE_EQ(heads_at(0.99 * lookup_cost(0.125, 32, 64), 32), 2);  // never above it
  EXPECT_DOUBLE_EQ(heads_at(lookup_cost(0.125, 32, 64), 16), 6);
  EXPECT_DOUBLE_EQ(heads_at(1000, 32), 24);
  try {
    heads_at(0.1, 32);
    FAIL() << "less than a head was taken";
  } catch (const UsageError& error) {
    EXPECT_STREQ(
        error.what(),
        "--lookup-cost 0.1 is less than one of the 24 heads costs, which is 0.104167: give "
        "more, or --lookup-heads 0");
  }
}

TEST(LookupShare, IsATenthWhereHeadsCanBeFound) {
  const auto found = [](int block, int64_t length, LookupSettings settings = {}) {
    return lookup_share(settings, shape(), block, length);
  };
  EXPECT_EQ(found(64, 961).share, 0.1);
  EXPECT_EQ(found(64, 961).why_none, "");
  EXPECT_EQ(found(64, 960).share, 0);
  EXPECT_EQ(found(64, 960).why_none,
            "sequences of 960 tokens are too short to find any: want 961 or more");
  EXPECT_THAT(found(32, 8192).why_none, HasSubstr("blocks of 32 tokens"));
  EXPECT_EQ(lookup_share({.rank = 64}, shape(), 64, 8192).share, 0.1);
  io::ModelConfig small = shape();
  small.head_dim = 16;
  EXPECT_EQ(lookup_share({}, small, 64, 8192).why_none,
            "heads have 16 features, fewer than --lookup-rank 32");
  // What is said counts, and is checked elsewhere.
  EXPECT_EQ(found(32, 100, {.share = 0.3}).share, 0.3);
  EXPECT_EQ(found(64, 8192, {.share = 0}).share, 0);
  EXPECT_EQ(found(64, 8192, {.share = 0}).why_none, "");
}

TEST_F(LookupHeads, AreFoundWhereNothingIsSaid) {
  const auto model = test_model();
  DistillSettings run = quick(folder, "a");
  run.lookup = {.rank = 16, .windows = 1};
  EXPECT_FALSE(distill(model, tokenizer, run).lookup);  // blocks of 16
  EXPECT_EQ(models::Gates::load(folder / "a", model).config().lookup_rank, 0);

  run.loop.out = folder / "b";
  run.gate.block_size = 64;
  run.length = 961;
  testing::internal::CaptureStderr();
  run.loop.show_progress = true;
  ASSERT_TRUE(distill(model, tokenizer, run).lookup);
  const auto found = models::Gates::load(folder / "b", model);
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("1 of 8 heads chooses blocks"));
  EXPECT_EQ(found.config().lookup_rank, 16);
  // What was found is known by its share, and the same share goes on with it.
  run.loop.show_progress = false;
  run.lookup.share = 0.1;
  EXPECT_EQ(distill(model, tokenizer, run).resumed_from, 1);
  run.lookup.share = -1;
  run.lookup.cost = lookup_cost(0.25, 16, model.config().head_dim);
  EXPECT_THAT(error_of(model, run), HasSubstr("settings.lookup.share is 0.25, was 0.1"));
  run.lookup.share = 0;
  EXPECT_THAT(error_of(model, run), HasSubstr("both say how many heads"));
}

TEST_F(LookupHeads, WhyThereAreNoneIsSaid) {
  const auto model = test_model();
  DistillSettings run = quick(folder, "a");
  run.lookup = {.rank = 16, .windows = 1};
  run.loop.show_progress = true;
  testing::internal::CaptureStderr();
  distill(model, tokenizer, run);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("distill: no lookup heads: gates with blocks of 16 tokens"));
  // Gates that are there get nothing else.
  run.gates = folder / "a";
  run.loop.out = folder / "b";
  EXPECT_THAT(error_of(model, run), HasSubstr((folder / "a").string() +
                                              " gets no lookup heads: gates with blocks of 16"));
}

TEST_F(LookupHeads, NoneAreFoundWhereNoneLosesAnything) {
  const auto model = test_model();
  for (const auto& layer : model.weights().layers) layer.q.zero_();  // attends to all alike
  DistillSettings run = quick(folder, "a");
  run.lookup = {.rank = 16, .windows = 1};
  run.gate.block_size = 64;
  run.length = 961;
  run.loop.show_progress = true;
  testing::internal::CaptureStderr();
  EXPECT_FALSE(distill(model, tokenizer, run).lookup);
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("distill: no lookup heads: no head loses anything by these gates\n"));
  EXPECT_EQ(models::Gates::load(folder / "a", model).config().lookup_rank, 0);
  EXPECT_FALSE(fs::exists(folder / "a" / "heads.json"));
  run.lookup.share = 0.1;
  EXPECT_THAT(error_of(model, run), HasSubstr("no head loses anything by these gates"));
}

TEST_F(LookupHeads, StayAsFoundWithoutSteps) {
  const auto model = test_model();
  DistillSettings run = quick(folder, "a");
  run.lookup.steps = 0;
  const DistillResult result = distill(model, tokenizer, run);
  EXPECT_EQ(result.steps, 1);
  ASSERT_TRUE(result.lookup);
  EXPECT_EQ(result.lookup->steps, 0);
  EXPECT_GT(result.lookup->valid.at("kl_per_row_valid"), 0);
  DistillSettings trained = quick(folder, "b");
  trained.lookup.learning_rate = 1e-12;
  distill(model, tokenizer, trained);
  const auto found = models::Gates::load(folder / "a", model),
             moved = models::Gates::load(folder / "b", model);
  EXPECT_EQ(found.config().lookup_heads, moved.config().lookup_heads);
  for (size_t layer = 0; layer < 2; ++layer) {
    if (found.config().lookup_heads[layer].empty()) continue;
    EXPECT_TRUE(at::allclose(found.layers()[layer].lookup_q, moved.layers()[layer].lookup_q));
  }
  const std::string before = read_file(folder / "a" / "attn_gate_weights.safetensors");
  EXPECT_EQ(distill(model, tokenizer, run).resumed_from, 1);
  EXPECT_EQ(read_file(folder / "a" / "attn_gate_weights.safetensors"), before);
  run.lookup.share = 0.5;
  EXPECT_THAT(error_of(model, run), HasSubstr("settings.lookup.share is 0.5, was 0.25"));
}

TEST_F(LookupHeads, GatesThatAreThereGetLookupHeads) {
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

TEST_F(LookupHeads, WhatAnotherHasLeftAsHeadsIsKept) {
  std::filesystem::create_directories(folder / "a");
  write_file_atomic(folder / "a" / "heads.json", "mine");
  EXPECT_THAT(error_of(test_model(), lookup_settings(folder, "a")), HasSubstr("heads.json"));
  EXPECT_EQ(read_file(folder / "a" / "heads.json"), "mine");
}

TEST_F(LookupHeads, WrongLookupHeadsAreNamed) {
  const auto model = test_model();
  DistillSettings wrong = lookup_settings(folder, "a");
  wrong.length = 200;
  EXPECT_THAT(error_of(model, wrong), HasSubstr("200 tokens is too short to find lookup heads"));
  wrong = lookup_settings(folder, "b");
  wrong.lookup.rank = 32;
  EXPECT_THAT(error_of(model, wrong), HasSubstr("32"));
  EXPECT_FALSE(std::filesystem::exists(folder / "b"));
  wrong.lookup.rank = 48;
  EXPECT_THAT(error_of(model, wrong), HasSubstr("lookup-rank is 48, want 16, 32 or 64"));
  wrong.lookup.rank = 20;
  EXPECT_THAT(error_of(model, wrong), HasSubstr("lookup-rank is 20"));
}

TEST_F(LookupHeads, AreNeverDroppedSilently) {
  const auto model = test_model();
  const DistillSettings with = quick(folder, "a");
  distill(model, tokenizer, with);
  const std::string gates = read_file(folder / "a" / "attn_gate_weights.safetensors");
  DistillSettings without = with;
  without.lookup = {};
  EXPECT_THAT(error_of(model, without), HasSubstr("has lookup heads, which gates without any"));
  fs::rename(folder / "a" / "lookup", folder / "moved");
  EXPECT_THAT(error_of(model, without), HasSubstr("has lookup heads, which gates without any"));
  fs::rename(folder / "moved", folder / "a" / "lookup");
  EXPECT_EQ(read_file(folder / "a" / "attn_gate_weights.safetensors"), gates);

  without.loop.restart = true;
  {
    FileLock other(folder / "a" / "lookup" / ".lock");
    ASSERT_TRUE(other.try_lock());
    EXPECT_THAT(error_of(model, without), HasSubstr("another process trains in"));
  }
  EXPECT_EQ(read_file(folder / "a" / "attn_gate_weights.safetensors"), gates);
  distill(model, tokenizer, without);
  EXPECT_EQ(models::Gates::load(folder / "a", model).config().lookup_rank, 0);
  for (const char* left : {"heads.json", "lookup/run.json", "lookup/metrics.jsonl"}) {
    EXPECT_FALSE(fs::exists(folder / "a" / left)) << left;
  }
  // Gates get their heads later, by the same command with --lookup-heads.
  EXPECT_EQ(distill(model, tokenizer, with).resumed_from, 1);
  EXPECT_EQ(read_file(folder / "a" / "attn_gate_weights.safetensors"), gates);
}

TEST_F(LookupHeads, OtherSettingsAreNamedBeforeAnythingIsTrained) {
  const auto model = test_model();
  const DistillSettings first = quick(folder, "a");
  distill(model, tokenizer, first);
  const auto error_with = [&](const auto& change) {
    DistillSettings wrong = first;
    change(wrong);
    fs::remove_all(folder / "a" / "checkpoints");  // of the gates, which would be trained anew
    fs::remove(folder / "a" / "metrics.jsonl");
    const std::string error = error_of(model, wrong);
    EXPECT_FALSE(fs::exists(folder / "a" / "metrics.jsonl")) << error;
    return error;
  };
  using S = DistillSettings;
  EXPECT_THAT(error_with([](S& s) { s.lookup.share = 0.5; }),
              HasSubstr("settings.lookup.share is 0.5, was 0.25"));
  EXPECT_THAT(error_with([](S& s) { s.lookup.windows = 3; }),
              HasSubstr("settings.lookup.windows is 3, was 1"));
  EXPECT_THAT(error_with([](S& s) { s.lookup.steps = 2; }), HasSubstr("loop.steps is 2, was 1"));
  EXPECT_THAT(error_with([](S& s) { s.lookup.learning_rate = 1; }),
              HasSubstr("settings.lookup.learning_rate is 1.0, was 0.003"));
  const std::string of_gates = error_with([](S& s) { s.learning_rate = 1; });
  EXPECT_THAT(of_gates, HasSubstr("settings.gates.learning_rate is 1.0, was 0.02"));
  EXPECT_THAT(of_gates, HasSubstr("delete " + (folder / "a" / "lookup").string()));
  fs::remove_all(folder / "a" / "lookup");
  DistillSettings more = first;
  more.lookup.share = 0.5;
  distill(model, tokenizer, more);
  fs::remove(folder / "a" / "run.json");
  fs::remove_all(folder / "a" / "checkpoints");
  EXPECT_THAT(error_of(model, more), HasSubstr("which no run of `seer distill` has made"));
}

TEST_F(LookupHeads, GivenGatesAreKnownByTheirWeights) {
  const auto model = test_model();
  DistillSettings of_gates = quick(folder, "gates");
  of_gates.lookup = {};
  distill(model, tokenizer, of_gates);
  of_gates.loop.out = folder / "others";
  of_gates.seed = 2;
  distill(model, tokenizer, of_gates);

  DistillSettings with = quick(folder, "with");
  with.gates = folder / "gates";
  distill(model, tokenizer, with);
  EXPECT_EQ(distill(model, tokenizer, with).resumed_from, 1);
  with.gates = folder / "others";
  const std::string error = error_of(model, with);
  EXPECT_THAT(error, HasSubstr("settings.gates is \"seer-1:"));
  EXPECT_THAT(error, Not(HasSubstr("delete")));
  // Neither run takes the other's folder.
  with.loop.out = folder / "gates";
  EXPECT_THAT(error_of(model, with), HasSubstr("is not of a run of `seer distill --lookup-heads`"));
  of_gates.loop.out = folder / "with";
  EXPECT_THAT(error_of(model, of_gates), HasSubstr("is not of a run of `seer distill`,"));

  // Gates of another model, of one whose windows leave nothing to choose.
  const auto windowed = test_model(64);
  with.loop.out = folder / "windowed";
  EXPECT_THAT(error_of(windowed, with), HasSubstr("--foreign-gates"));
  with.foreign_gates = true;
  EXPECT_THAT(error_of(windowed, with), HasSubstr("a sliding window hides keys in every layer"));
}

TEST_F(LookupHeads, StoppedAfterTheLastStepOfEitherRunWhatIsDoneIsSaved) {
  const auto model = test_model();
  for (const int stopped : {1, 2}) {
    DistillSettings run = quick(folder, message("after-", stopped));
    StopsAfterRun ranks(stopped);
    run.loop.ranks = &ranks;
    EXPECT_THROW(distill(model, tokenizer, run), Interrupted);
    EXPECT_EQ(io::read_gate_config(run.loop.out).lookup_rank > 0, stopped == 2);
    EXPECT_EQ(fs::exists(run.loop.out / "heads.json"), stopped == 2);
    run.loop.ranks = nullptr;
    EXPECT_EQ(distill(model, tokenizer, run).resumed_from, 1);
    EXPECT_GT(io::read_gate_config(run.loop.out).lookup_rank, 0);
  }
}

TEST_F(LookupHeads, AreLookedForAWindowAtATimeUntilASignalComes) {
  const auto model = test_model();
  const auto gates = models::Gates::create(quick(folder, "").gate, model, 1);
  LoopSettings loop;
  loop.show_progress = false;
  const LookupSettings lookup{.share = 0.25, .rank = 16, .windows = 4};
  const auto ids = at::arange(265, at::kLong);
  int64_t windows = 0;
  const auto count = [&](int64_t i) {
    EXPECT_EQ(i, windows++);
    return ids;
  };
  const auto needs = find_needs(model, gates, count, lookup, loop, 1);
  EXPECT_EQ(windows, 4);
  EXPECT_THAT(text_of_found(needs, with_lookup_heads(model, gates, needs, lookup, 1).config()),
              ::testing::MatchesRegex(
                  "2 of 8 heads choose blocks by tokens: layer .*. They lose [1-9][0-9] % of what "
                  "all lose"));
  windows = 0;
  const auto interrupt = [&](int64_t i) {
    if (++windows == 2) std::raise(SIGTERM);
    return ids.roll(i);
  };
  EXPECT_THROW(find_needs(model, gates, interrupt, lookup, loop, 1), Interrupted);
  EXPECT_EQ(windows, 2);
}

}  // namespace
}  // namespace seer::train
