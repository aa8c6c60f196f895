// Every rule against its definition, ties, forced blocks, chunks, and scores that must be refused.

#include "seer/kernels/block_select/block_select.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "seer/kernels/block_select/reference.h"
#include "seer/kernels/block_select/testing/block_select_cases.h"

namespace seer::kernels {
namespace {

class BlockSelect : public testing::TestWithParam<SelectShape> {
 protected:
  // Calls `test` with the inputs of every rule.
  template <class Test>
  static void for_each_rule(const Test& test) {
    for (const auto& rule : kSelectRules) {
      SCOPED_TRACE(rule.name);
      test(SelectInputs(GetParam(), rule.rule,
                        std::vector<double>(GetParam().heads, rule.strength)));
    }
  }
};

TEST_P(BlockSelect, AgreesWithDefinition) {
  for_each_rule([](SelectInputs in) {
    const auto got = in.run();
    EXPECT_EQ(got, reference::block_select(in.p));
  });
}

// Few values, so that nearly every cut goes through a tie; and masked blocks among the visible
// ones. A budget of a head compares softmax values of different rows: there equal scores are not
// equal.
TEST_P(BlockSelect, TiesAndMaskedBlocks) {
  for_each_rule([](SelectInputs in) {
    if (in.p.rule == SelectRule::head_budget) return;
    in.make_ties();
    const auto got = in.run();
    EXPECT_EQ(got, reference::block_select(in.p));
  });
}

TEST_P(BlockSelect, SameForAnyNumberOfThreads) {
  const int before = omp_get_max_threads();
  for_each_rule([](SelectInputs in) {
    omp_set_num_threads(1);
    const auto one = in.run();
    const auto begin = in.begin;
    omp_set_num_threads(3);
    EXPECT_EQ(in.run(), one);
    EXPECT_EQ(in.begin, begin);
  });
  omp_set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(Shapes, BlockSelect, testing::ValuesIn(kSelectShapes),
                         [](const auto& test) { return std::string(test.param.name); });

// Ties go to the lower index: with equal scores the k first blocks and the diagonal are kept.
TEST(BlockSelectRules, TiesGoToTheLowerIndex) {
  SelectInputs in({"", {640}, {640}, 1, 16, 0, {0, 0, 0}}, SelectRule::row_budget, {16 * 3.0});
  std::fill(in.scores.begin(), in.scores.end(), 0.5f);
  in.run();
  EXPECT_EQ(std::vector<int32_t>(&in.list[in.begin[20]], &in.list[in.begin[20] + in.count[20]]),
            (std::vector<int32_t>{0, 1, 2, 20}));
}

TEST(BlockSelectRules, StrengthPerHead) {
  SelectInputs in({"", {640}, {640}, 2, 16, 0, {0, 0, 0}}, SelectRule::nz_ratio, {0.0, 1.0});
  in.run();
  EXPECT_LE(in.count[39], 2);
  EXPECT_EQ(in.count[40 + 39], 40);
}

// A chunk on the grid of blocks, told of the complete prompt, chooses what the whole prompt does: k of
// nz_ratio, and which rows are dense.
TEST(BlockSelectRules, ChunksChooseWhatTheWholePromptDoes) {
  const SelectForced forced{1, 1, 2};
  for (const SelectRule rule : {SelectRule::nz_ratio, SelectRule::threshold, SelectRule::top_p}) {
    SelectInputs whole({"", {312}, {312}, 1, 16, 0, forced}, rule, {0.3});
    const auto want = whole.run();
    for (const int first : {0, 8, 16}) {  // rows
      const int end = std::min(16 * (first + 8), 312), blocks = (end + 15) / 16;
      SelectInputs chunk({"", {end - 16 * first}, {end}, 1, 16, 20, forced}, rule, {0.3});
      for (int m = 0; m < blocks - first; ++m) {
        std::copy_n(&whole.scores[(first + m) * 20], blocks, &chunk.scores[m * blocks]);
      }
      const auto got = chunk.run();
      for (int m = 0; m < blocks - first; ++m) {
        EXPECT_TRUE(
            std::equal(&got[m * blocks], &got[m * blocks] + blocks, &want[(first + m) * 20]))
            << "row " << first + m;
      }
    }
  }
}

// Scores outside of what a row sees are never read.
TEST(BlockSelectRules, MaskedNanIsNotRead) {
  SelectInputs in({"", {64}, {64}, 1, 16, 0, {0, 0, 0}}, SelectRule::threshold, {0.01});
  for (int m = 0; m < 4; ++m) {
    for (int n = m + 1; n < 4; ++n) in.scores[m * 4 + n] = NAN;
  }
  const auto got = in.run();
  EXPECT_EQ(got, reference::block_select(in.p));
}

TEST(BlockSelectRules, Refused) {
  const SelectShape shape{"", {64}, {64}, 2, 16, 0, {0, 0, 0}};
  const auto error_of = [&](SelectRule rule, double strength, float score) -> std::string {
    SelectInputs in(shape, rule, {strength, strength});
    in.scores[16 + 12 + 2] = score;
    try {
      in.run();
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  using testing::HasSubstr;
  EXPECT_THAT(error_of(SelectRule::nz_ratio, 1.5, 0), HasSubstr("strength of nz_ratio is 1.5"));
  EXPECT_THAT(error_of(SelectRule::top_p, -0.1, 0), HasSubstr("want 0 ... 1"));
  EXPECT_THAT(error_of(SelectRule::row_budget, NAN, 0), HasSubstr("row_budget is nan"));
  EXPECT_THAT(error_of(SelectRule::nz_ratio, 0.5, NAN), HasSubstr("scores of head 1 hold NaN"));
  EXPECT_THAT(error_of(SelectRule::head_budget, 0.5, NAN), HasSubstr("scores of head 1 hold NaN"));
  EXPECT_THAT(error_of(SelectRule::top_p, 0.5, INFINITY), HasSubstr("scores of head 1 hold NaN"));
  EXPECT_EQ(error_of(SelectRule::nz_ratio, 0.5, INFINITY), "no error");
  EXPECT_THROW(select_rule("best"), Error);
  EXPECT_EQ(select_rule("top_p").rule, SelectRule::top_p);
  SelectInputs small({"", {64}, {64}, 1, 16, 3, {0, 0, 0}}, SelectRule::nz_ratio, {0.5});
  EXPECT_THROW(small.run(), Error);  // a prompt of 3 blocks cannot hold 4
}

}  // namespace
}  // namespace seer::kernels
