// Every rule against its definition, ties, forced blocks, chunks, and scores that must be refused.

#include "seer/kernels/block_select/block_select.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "seer/base/random.h"
#include "seer/kernels/block_select/reference.h"

namespace seer::kernels {
namespace {

struct Shape {
  const char* name;
  std::vector<int> q_lens, k_lens;
  int heads, block;
  int64_t prompt_blocks;
  SelectForced forced;
  friend void PrintTo(const Shape& s, std::ostream* out) { *out << s.name; }
};

struct Inputs {
  Inputs(const Shape& s, SelectRule rule, std::vector<double> strengths)
      : strength(std::move(strengths)), cu_q{0}, cu_k{0}, cu_rows{0} {
    p.num_seqs = static_cast<int>(s.q_lens.size());
    for (int b = 0; b < p.num_seqs; ++b) {
      cu_q.push_back(cu_q.back() + s.q_lens[b]);
      cu_k.push_back(cu_k.back() + s.k_lens[b]);
      cu_rows.push_back(cu_rows.back() + (s.q_lens[b] + s.block - 1) / s.block);
      p.num_blocks = std::max<int64_t>(p.num_blocks, (s.k_lens[b] + s.block - 1) / s.block);
    }
    p.num_heads = s.heads;
    p.num_rows = cu_rows.back();
    p.block = s.block;
    p.prompt_blocks = s.prompt_blocks;
    p.forced = s.forced;
    p.rule = rule;
    scores.resize(p.num_heads * p.num_rows * p.num_blocks);
    Random random(11);
    for (float& x : scores) x = static_cast<float>(2 * random.normal());
  }

  std::vector<char> run() {
    begin.assign(p.num_heads * p.num_rows, -1);
    count.assign(begin.size(), -1);
    p.scores = scores.data();
    p.cu_q = cu_q.data();
    p.cu_k = cu_k.data();
    p.cu_rows = cu_rows.data();
    p.strength = strength.data();
    p.begin = begin.data();
    p.count = count.data();
    p.capacity = block_select_capacity(p);
    list.assign(p.capacity + 8, -7);
    p.list = list.data();
    block_select(p, {});
    EXPECT_THAT(std::vector<int32_t>(list.end() - 8, list.end()), testing::Each(-7));
    return mask();
  }

  std::vector<char> mask() const {
    std::vector<char> out(scores.size());
    for (size_t row = 0; row < begin.size(); ++row) {
      for (int32_t i = 0; i < count[row]; ++i) {
        const int32_t n = list[begin[row] + i];
        EXPECT_TRUE(n >= 0 && n < p.num_blocks && (i == 0 || n > list[begin[row] + i - 1]));
        out[row * p.num_blocks + n] = 1;
      }
    }
    return out;
  }

  std::vector<double> strength;
  std::vector<int32_t> cu_q, cu_k, cu_rows, count, list;
  std::vector<int64_t> begin;
  std::vector<float> scores;
  BlockSelectParams p{};
};

const Shape kShapes[] = {
    {"whole", {640}, {640}, 3, 16, 0, {0, 0, 0}},
    {"odd_tail", {333}, {333}, 2, 16, 0, {0, 0, 2}},
    {"packed", {100, 16, 1, 300}, {100, 16, 1, 300}, 2, 16, 0, {1, 2, 1}},
    {"chunk", {64}, {320}, 2, 16, 40, {0, 0, 2}},
    {"last_chunk", {64}, {640}, 2, 16, 40, {2, 1, 2}},
    {"chunk_off_the_grid", {90}, {331}, 2, 16, 21, {0, 1, 2}},
    {"q_longer_than_k", {200}, {77}, 2, 16, 0, {1, 1, 0}},
    {"empty_sequence", {0, 50}, {33, 50}, 1, 16, 0, {0, 0, 1}},
    {"one_token", {1}, {1}, 2, 64, 0, {0, 0, 0}},
    {"everything_forced", {160}, {160}, 1, 16, 0, {20, 0, 0}},
    {"long_rows", {320}, {4000}, 2, 16, 0, {0, 0, 0}},
};
const struct {
  SelectRule rule;
  const char* name;
  double strength;
} kRules[] = {{SelectRule::nz_ratio, "nz_ratio_01", 0.1},
              {SelectRule::nz_ratio, "nz_ratio_05", 0.5},
              {SelectRule::nz_ratio, "nz_ratio_0", 0},
              {SelectRule::nz_ratio, "nz_ratio_1", 1},
              {SelectRule::threshold, "threshold", 0.02},
              {SelectRule::threshold, "threshold_0", 0},
              {SelectRule::top_p, "top_p_08", 0.8},
              {SelectRule::top_p, "top_p_0", 0},
              {SelectRule::top_p, "top_p_1", 1},
              {SelectRule::row_budget, "row_budget", 100},
              {SelectRule::row_budget, "row_budget_0", 3},
              {SelectRule::head_budget, "head_budget", 0.2},
              {SelectRule::head_budget, "head_budget_1", 1}};

class BlockSelect : public testing::TestWithParam<Shape> {
 protected:
  // Calls `test` with the inputs of every rule.
  template <class Test>
  static void for_each_rule(const Test& test) {
    for (const auto& rule : kRules) {
      SCOPED_TRACE(rule.name);
      test(Inputs(GetParam(), rule.rule, std::vector<double>(GetParam().heads, rule.strength)));
    }
  }
};

TEST_P(BlockSelect, AgreesWithDefinition) {
  for_each_rule([](Inputs in) {
    const auto got = in.run();
    EXPECT_EQ(got, reference::block_select(in.p));
  });
}

// Few values, so that nearly every cut goes through a tie; and masked blocks among the visible
// ones. A budget of a head compares softmax values of different rows: there equal scores are not
// equal.
TEST_P(BlockSelect, TiesAndMaskedBlocks) {
  for_each_rule([](Inputs in) {
    if (in.p.rule == SelectRule::head_budget) return;
    for (size_t i = 0; i < in.scores.size(); ++i) {
      in.scores[i] = i % 5 == 1 ? -0.0f : 0.0f;  // equal
      if (i % 7 == 2) in.scores[i] = -INFINITY;
      if (i % 11 == 1) in.scores[i] = 1;
    }
    const auto got = in.run();
    EXPECT_EQ(got, reference::block_select(in.p));
  });
}

TEST_P(BlockSelect, SameForAnyNumberOfThreads) {
  const int before = omp_get_max_threads();
  for_each_rule([](Inputs in) {
    omp_set_num_threads(1);
    const auto one = in.run();
    const auto begin = in.begin;
    omp_set_num_threads(3);
    EXPECT_EQ(in.run(), one);
    EXPECT_EQ(in.begin, begin);
  });
  omp_set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(Shapes, BlockSelect, testing::ValuesIn(kShapes),
                         [](const auto& test) { return std::string(test.param.name); });

// Ties go to the lower index: with equal scores the k first blocks and the diagonal are kept.
TEST(BlockSelectRules, TiesGoToTheLowerIndex) {
  Inputs in({"", {640}, {640}, 1, 16, 0, {0, 0, 0}}, SelectRule::row_budget, {16 * 3.0});
  std::fill(in.scores.begin(), in.scores.end(), 0.5f);
  in.run();
  EXPECT_EQ(std::vector<int32_t>(&in.list[in.begin[20]], &in.list[in.begin[20] + in.count[20]]),
            (std::vector<int32_t>{0, 1, 2, 20}));
}

TEST(BlockSelectRules, StrengthPerHead) {
  Inputs in({"", {640}, {640}, 2, 16, 0, {0, 0, 0}}, SelectRule::nz_ratio, {0.0, 1.0});
  in.run();
  EXPECT_LE(in.count[39], 2);
  EXPECT_EQ(in.count[40 + 39], 40);
}

// Scores outside of what a row sees are never read.
TEST(BlockSelectRules, MaskedNanIsNotRead) {
  Inputs in({"", {64}, {64}, 1, 16, 0, {0, 0, 0}}, SelectRule::threshold, {0.01});
  for (int m = 0; m < 4; ++m) {
    for (int n = m + 1; n < 4; ++n) in.scores[m * 4 + n] = NAN;
  }
  const auto got = in.run();
  EXPECT_EQ(got, reference::block_select(in.p));
}

TEST(BlockSelectRules, Refused) {
  const Shape shape{"", {64}, {64}, 2, 16, 0, {0, 0, 0}};
  const auto error_of = [&](SelectRule rule, double strength, float score) -> std::string {
    Inputs in(shape, rule, {strength, strength});
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
  EXPECT_THROW(select_rule_from_name("best"), Error);
  EXPECT_EQ(select_rule_from_name("top_p"), SelectRule::top_p);
  Inputs small({"", {64}, {64}, 1, 16, 3, {0, 0, 0}}, SelectRule::nz_ratio, {0.5});
  EXPECT_THROW(small.run(), Error);  // a prompt of 3 blocks cannot hold 4
}

}  // namespace
}  // namespace seer::kernels
