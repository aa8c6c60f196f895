#include "seer/bench/op_stopwatch.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <optional>

#include "seer/base/error.h"

namespace seer::bench {
namespace {

TEST(OpStopwatch, CountsTheNamedOpWhileItLives) {
  const at::Tensor x = at::ones({256, 256});
  std::optional<OpStopwatch> watch(std::in_place, "aten::linear", at::kCPU);
  at::softmax(x, 1);
  EXPECT_EQ(watch->seconds(), 0);
  at::linear(x, x);
  const double one = watch->seconds();
  EXPECT_GT(one, 0);
  at::linear(x, x);
  EXPECT_GT(watch->seconds(), one);
  EXPECT_THROW(OpStopwatch("aten::mm", at::kCPU), seer::Error);
  watch.reset();
  at::linear(x, x);  // nobody counts
  OpStopwatch next("aten::linear", at::kCPU);
  EXPECT_EQ(next.seconds(), 0);
}

}  // namespace
}  // namespace seer::bench
