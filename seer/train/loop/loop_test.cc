#include "seer/train/loop/loop.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <memory>
#include <stdexcept>

#include "seer/base/error.h"
#include "seer/base/interrupt.h"
#include "seer/train/loop/run_folder.h"
#include "seer/train/testing/loop_fixture.h"

namespace seer::train {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

using Loop = LoopTest;

TEST_F(Loop, LossFallsAndMetricsAreComplete) {
  QuadraticTask task;
  const RunResult result = run(task, settings("a", 60));
  EXPECT_EQ(result.steps, 60);
  EXPECT_EQ(result.tokens, 600);
  const auto lines = metrics_of(folder / "a");
  ASSERT_EQ(lines.size(), 66u);  // 60 steps, 6 validations
  EXPECT_EQ(lines[0]["step"], 1);
  EXPECT_GT(lines[0]["loss"].get<double>(), 90);
  EXPECT_LT(result.loss, 40);
  EXPECT_NEAR(lines[0]["lr_vector"].get<double>(), 0.1 / 3, 1e-9);
  EXPECT_EQ(lines.back()["valid_square"].get<double>(), result.valid.at("square"));
}

TEST_F(Loop, MicroBatchesAreSummed) {
  // The gradient of 1/2 f twice is that of f once, up to the noise: here none, by equal streams.
  QuadraticTask task(1, 4);
  int calls = 0;
  task.before_backward = [&](int64_t, int64_t) { ++calls; };
  LoopSettings one = settings("a", 1);
  one.clip = 0;
  run(task, one);
  EXPECT_EQ(calls, 4);
  // d/dx sum of x^2 at 3 is 6, plus the mean noise of a few tenths.
  EXPECT_NEAR(task.vector().grad().mean().item<double>(), 6, 0.5);
}

// Or the same command with fewer processes would be told of other settings.
TEST_F(Loop, TooFewMicroBatchesAreRefusedBeforeTheFolderIsMade) {
  QuadraticTask none(1, 0);
  try {
    run(none, settings("a", 1));
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("has 0 micro-batches, too few for 1 process:"));
  }
  EXPECT_FALSE(fs::exists(folder / "a"));
}

TEST_F(Loop, GradientIsClippedToTheNorm) {
  QuadraticTask task;
  LoopSettings one = settings("a", 1);
  one.clip = 0.25;
  run(task, one);
  const double norm = std::sqrt(task.vector().grad().square().sum().item<double>() +
                                task.matrix().grad().square().sum().item<double>());
  EXPECT_NEAR(norm, 0.25, 1e-5);
  EXPECT_GT(metrics_of(folder / "a")[0]["grad_norm"].get<double>(), 10);
}

TEST_F(Loop, StoppedAnywhereAndResumedEndsWithTheSameBits) {
  QuadraticTask whole;
  run(whole, settings("whole"));
  for (const int64_t stop : {0, 6, 7, 20, 39}) {
    const auto again = settings("stop-" + std::to_string(stop));
    QuadraticTask first;
    first.before_backward = [&](int64_t step, int64_t micro_batch) {
      if (step == stop && micro_batch == 1) throw std::runtime_error("stop");
    };
    EXPECT_THROW(run(first, again), std::runtime_error);
    QuadraticTask second;
    const RunResult result = run(second, again);
    EXPECT_EQ(result.resumed_from, stop / 7 * 7);
    EXPECT_TRUE(same_bits(whole, second)) << stop;
    EXPECT_EQ(metrics_of(again.out), metrics_of(folder / "whole")) << stop;
  }
}

TEST_F(Loop, AFinishedRunIsNotRunAgain) {
  QuadraticTask first, second;
  const RunResult done = run(first, settings("a"));
  second.before_backward = [](int64_t, int64_t) { FAIL() << "a step was made"; };
  const RunResult again = run(second, settings("a"));
  EXPECT_EQ(again.resumed_from, 40);
  EXPECT_EQ(again.loss, done.loss);
  EXPECT_EQ(again.valid, done.valid);
  EXPECT_TRUE(same_bits(first, second));
}

TEST_F(Loop, OnlyTheLastTwoCheckpointsStay) {
  QuadraticTask task;
  run(task, settings("a"));
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder / "a" / "checkpoints")) {
    names.push_back(entry.path().filename().string());
  }
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("step-00000035.safetensors",
                                                     "step-00000040.safetensors"));
}

TEST_F(Loop, StepsThatAreNotFiniteAreLeftOutAndCounted) {
  QuadraticTask task;
  task.broken_steps = [](int64_t step) { return step == 5 || step == 6 || step == 20; };
  const RunResult result = run(task, settings("a"));
  EXPECT_EQ(result.skipped_steps, 3);
  EXPECT_TRUE(at::isfinite(task.vector()).all().item<bool>());
  const auto lines = metrics_of(folder / "a");
  EXPECT_TRUE(lines[5]["skipped"].get<bool>());
  EXPECT_TRUE(lines[5]["loss"].is_null());
  EXPECT_FALSE(lines[7].contains("skipped"));
}

TEST_F(Loop, TenBrokenStepsInARowEndTheRun) {
  QuadraticTask nine, ten;
  nine.broken_steps = [](int64_t step) { return step >= 5 && step < 14; };
  EXPECT_EQ(run(nine, settings("nine")).skipped_steps, 9);
  ten.broken_steps = [](int64_t step) { return step >= 5; };
  EXPECT_THAT(error_of(ten, settings("ten")), HasSubstr("not finite in 10 steps in a row"));
}

TEST_F(Loop, OtherSettingsAreRefusedByNameUnlessRestarted) {
  QuadraticTask task(1), other(2);
  run(task, settings("a"));
  EXPECT_THAT(error_of(other, settings("a")), HasSubstr("settings.seed is 2, was 1"));
  EXPECT_THAT(error_of(task, settings("a", 41)), HasSubstr("loop.steps is 41, was 40"));
  LoopSettings restart = settings("a");
  restart.restart = true;
  QuadraticTask fresh(2), twin(2);
  EXPECT_EQ(run(fresh, restart).resumed_from, 0);
  run(twin, settings("b"));
  EXPECT_TRUE(same_bits(fresh, twin));
}

TEST_F(Loop, ARestartDiscardsTheResultOfARunAndNoOtherFile) {
  LoopSettings restart = settings("a");
  restart.restart = true;
  const auto result = restart.out / "result", other = restart.out / "other";
  QuadraticTask first, second;
  run(first, restart);
  write_file_atomic(result, "of the run");
  write_file_atomic(other, "of somebody");
  run(second, restart);
  EXPECT_FALSE(std::filesystem::exists(result));
  EXPECT_TRUE(std::filesystem::exists(other));
}

TEST_F(Loop, WhatNoRunOfItsKindHasMadeIsNotOverwritten) {
  for (const char* name : {"result", "metrics.jsonl", "run.json"}) {
    for (const bool restarts : {false, true}) {
      LoopSettings again = settings(name);
      again.restart = restarts;
      write_file_atomic(again.out / name, R"({"task": "another"})");
      QuadraticTask task;
      EXPECT_THAT(error_of(task, again), HasSubstr("choose another folder"));
      EXPECT_EQ(read_file(again.out / name), R"({"task": "another"})");
      const auto all = std::filesystem::directory_iterator(again.out);
      EXPECT_EQ(std::distance(all, {}), 1) << "nothing is written";
    }
  }
}

TEST_F(Loop, AFolderBelongsToOneProcess) {
  QuadraticTask outer, inner;
  outer.before_backward = [&](int64_t step, int64_t) {
    if (step != 3) return;
    EXPECT_THAT(error_of(inner, settings("a")), HasSubstr("another process trains"));
  };
  run(outer, settings("a"));
}

// The second of two processes; its sums are its own part.
class Second : public Ranks {
 public:
  int rank() const override { return 1; }
  int size() const override { return 2; }
};

TEST_F(Loop, AllProcessesValidateAndTheFirstWrites) {
  QuadraticTask first, second;
  first.before_backward = [](int64_t, int64_t) { throw std::runtime_error("stop"); };
  EXPECT_THROW(run(first, settings("a")), std::runtime_error);  // makes the folder
  Second ranks;
  LoopSettings of_second = settings("a");
  of_second.ranks = &ranks;
  const RunResult result = run(second, of_second);
  EXPECT_EQ(second.validations, 4);
  EXPECT_EQ(result.valid.at("square"), second.vector().detach().square().sum().item<double>());
  EXPECT_TRUE(metrics_of(folder / "a").empty());
  EXPECT_TRUE(std::filesystem::is_empty(folder / "a" / "checkpoints"));
}

TEST_F(Loop, ProcessesComputeTheirOwnMicroBatchesAsManyAtOnceAsTheTaskTakes) {
  QuadraticTask first(1, 7), second(1, 7);
  first.most_at_once = second.most_at_once = 3;
  run(first, settings("a", 1));
  EXPECT_THAT(first.parts, ElementsAre(ElementsAre(0, 1, 2), ElementsAre(3, 4, 5), ElementsAre(6)));
  Second ranks;
  LoopSettings of_second = settings("a", 1);
  of_second.ranks = &ranks;
  fs::remove_all(of_second.out / "checkpoints");
  run(second, of_second);
  EXPECT_THAT(second.parts, ElementsAre(ElementsAre(1, 3, 5)));
}

// Files may not grow beyond some bytes while this lives: what a full disk looks like.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    ::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() { ::setrlimit(RLIMIT_FSIZE, &before_); }

 private:
  rlimit before_{};
};

TEST_F(Loop, AFullDiskEndsTheRunWhichThenGoesOn) {
  QuadraticTask whole;
  run(whole, settings("whole"));
  // The limit meets the metrics, or already the first checkpoint.
  for (const rlim_t bytes : {3000, 600}) {
    const auto again = settings("full-" + std::to_string(bytes));
    QuadraticTask stopped, resumed;
    {
      const FullDisk full(bytes);
      EXPECT_THAT(error_of(stopped, again), HasSubstr("cannot write " + again.out.string()));
    }
    run(resumed, again);
    EXPECT_TRUE(same_bits(whole, resumed)) << bytes;
    EXPECT_EQ(metrics_of(again.out), metrics_of(folder / "whole")) << bytes;
  }
}

TEST_F(Loop, AFolderThatIsDeletedMeanwhileIsAnErrorAndNothingIsLost) {
  QuadraticTask whole, stopped, resumed;
  run(whole, settings("whole"));
  stopped.before_backward = [&](int64_t step, int64_t) {
    if (step == 9) fs::remove_all(folder / "a");
  };
  EXPECT_THAT(error_of(stopped, settings("a")), HasSubstr("step 14 is saved there anew"));
  EXPECT_EQ(run(resumed, settings("a")).resumed_from, 14);
  EXPECT_TRUE(same_bits(whole, resumed));
}

TEST_F(Loop, AFolderThatIsDeletedBeforeTheResultIsWrittenIsAnError) {
  QuadraticTask task;
  run(task, settings("a"));
  check_run_is_there(folder / "a", "the result is");
  fs::remove_all(folder / "a");
  write_file_atomic(folder / "a" / "result", "of the run");
  try {
    check_run_is_there(folder / "a", "the result is");
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("the result is saved there anew"));
  }
}

TEST_F(Loop, ARunWithoutAStepThatCountsIsAnError) {
  QuadraticTask task;
  task.broken_steps = [](int64_t) { return true; };
  EXPECT_THAT(error_of(task, settings("a", 3)), HasSubstr("nothing is trained"));
}

TEST_F(Loop, SettingsOutsideOfTheirRangesAreRefused) {
  QuadraticTask task;
  LoopSettings wrong = settings("a");
  wrong.clip = std::nan("");
  EXPECT_THROW(run(task, wrong), UsageError);
  EXPECT_THAT(error_of(task, wrong), HasSubstr("clip is nan, want a number, 0 ... 1000000000"));
  EXPECT_THAT(error_of(task, settings("a", 0)), HasSubstr("steps is 0"));
  EXPECT_FALSE(fs::exists(folder / "a"));
}

TEST_F(Loop, ASignalSavesTheStepAndTheRunGoesOnWithTheSameBits) {
  QuadraticTask whole;
  run(whole, settings("whole"));
  // After step 10 a validation is due, after 40 it is the last one.
  for (const int64_t step : {2, 10, 40}) {
    for (const int signal : {SIGINT, SIGTERM}) {
      const auto again = settings(message("stop-", step, "-", signal));
      QuadraticTask stopped, resumed;
      stopped.before_backward = [&](int64_t at, int64_t micro_batch) {
        if (at == step - 1 && micro_batch == 0) ::raise(signal);
      };
      try {
        run(stopped, again);
        ADD_FAILURE() << "not stopped";
      } catch (const Interrupted& stop) {
        EXPECT_EQ(stop.signal, signal);
      }
      EXPECT_EQ(run(resumed, again).resumed_from, step);
      EXPECT_TRUE(same_bits(whole, resumed)) << step;
      EXPECT_EQ(metrics_of(again.out), metrics_of(folder / "whole")) << step;
    }
  }
}

TEST_F(Loop, ASignalAfterTheLastStepIsAnswered) {
  QuadraticTask stopped, again;
  LoopSettings run_settings = settings("a");
  StopsAfterRun first(1);
  run_settings.ranks = &first;
  EXPECT_THROW(run(stopped, run_settings), Interrupted);
  run_settings.ranks = nullptr;
  EXPECT_EQ(run(again, run_settings).resumed_from, 40);
}

}  // namespace
}  // namespace seer::train
