#include "seer/bench/op_times.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <optional>
#include <thread>

#include "seer/base/error.h"

namespace seer::bench {
namespace {

TEST(OpTimes, CountsTheNamedOpsWhileItLives) {
  const at::Tensor x = at::ones({256, 256});
  std::optional<OpTimes> times(std::in_place, std::vector<OpPart>{{"products", {"aten::linear"}}},
                               at::kCPU);
  at::softmax(x, 1);
  EXPECT_EQ(times->seconds()["products"], 0);
  at::linear(x, x);
  const double one = times->seconds()["products"];
  EXPECT_GT(one, 0);
  std::thread([&] { at::linear(x, x); }).join();
  EXPECT_GT(times->seconds()["products"], one);
  EXPECT_THROW(OpTimes({}, at::kCPU), seer::Error);
  times.reset();
  at::linear(x, x);  // nobody counts
  OpTimes next({{"products", {"aten::linear"}}}, at::kCPU);
  EXPECT_EQ(next.seconds()["products"], 0);
}

TEST(OpTimes, WhatIsInsideACallBelongsToIt) {
  const at::Tensor x = at::ones({256, 256});
  OpTimes times({{"loss", {"test::loss"}}, {"products", {"aten::mm", "aten::add"}}}, at::kCPU);
  {
    RECORD_USER_SCOPE("test::loss");
    at::mm(x, x);
  }
  auto seconds = times.seconds();
  EXPECT_GT(seconds["loss"], 0);
  EXPECT_EQ(seconds["products"], 0);
  at::mm(x, x);
  at::add(x, x);
  EXPECT_GT(times.seconds()["products"], 0);
}

}  // namespace
}  // namespace seer::bench
