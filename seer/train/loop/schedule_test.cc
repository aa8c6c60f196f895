#include "seer/train/loop/schedule.h"

#include <gtest/gtest.h>

namespace seer::train {
namespace {

TEST(Schedule, CosineByTable) {
  const Schedule schedule{Schedule::Form::cosine, 4, 0, 0.1};
  const struct {
    int64_t step;
    double want;
  } rows[] = {{0, 0.25},
              {1, 0.5},
              {3, 1},
              {4, 1},
              {8, 0.1 + 0.9 * 0.853553},
              {12, 0.55},
              {16, 0.1 + 0.9 * 0.146447},
              {20, 0.1}};
  for (const auto& row : rows)
    EXPECT_NEAR(factor(schedule, row.step, 20), row.want, 1e-6) << row.step;
}

TEST(Schedule, ConstantThenLinearByTable) {
  const Schedule schedule{Schedule::Form::linear, 2, 0.5, 0.02};
  const struct {
    int64_t step;
    double want;
  } rows[] = {{0, 0.5},     {1, 1},     {2, 1},       {50, 1},
              {51, 0.9804}, {75, 0.51}, {99, 0.0396}, {100, 0.02}};
  for (const auto& row : rows)
    EXPECT_NEAR(factor(schedule, row.step, 100), row.want, 1e-6) << row.step;
}

TEST(Schedule, WarmUpLongerThanTheRunOnlyRises) {
  const Schedule schedule{Schedule::Form::cosine, 20, 0, 0};
  for (int64_t step = 0; step < 5; ++step) {
    EXPECT_NEAR(factor(schedule, step, 5), (static_cast<double>(step) + 1) / 20, 1e-12);
  }
}

TEST(Schedule, AWarmUpThatIsNotGivenIsAtMostASixthOfTheRun) {
  const Schedule usual{Schedule::Form::cosine, -1, 0, 0, 20};
  const struct {
    int64_t steps, want;
  } rows[] = {{1, 1}, {6, 1}, {7, 2}, {20, 4}, {119, 20}, {120, 20}, {500, 20}};
  for (const auto& row : rows) EXPECT_EQ(warmup_steps(usual, row.steps), row.want) << row.steps;
  // A short run comes down again.
  EXPECT_EQ(factor(usual, 3, 20), 1);
  EXPECT_LT(factor(usual, 19, 20), 0.01);
  const Schedule given{Schedule::Form::cosine, 15, 0, 0, 20};
  EXPECT_EQ(warmup_steps(given, 20), 15);
}

TEST(Schedule, LinearWithoutConstantPartFallsFromTheWarmUpOn) {
  const Schedule schedule{Schedule::Form::linear, 10, 0, 0};
  EXPECT_NEAR(factor(schedule, 10, 110), 1, 1e-12);
  EXPECT_NEAR(factor(schedule, 60, 110), 0.5, 1e-12);
  EXPECT_NEAR(factor(schedule, 109, 110), 0.01, 1e-12);
}

}  // namespace
}  // namespace seer::train
