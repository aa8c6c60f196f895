// The loss against plain loops in double, its gradient against finite differences of them.

#include "seer/kernels/gate_loss/gate_loss.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "seer/base/random.h"
#include "seer/kernels/gate_loss/reference.h"

namespace seer::kernels {
namespace {

struct Case {
  const char* name;
  std::vector<int> rows, key_blocks;
  int heads;
  double skip;
  friend void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
};

// Causal scores and row-normalised targets; the queries are the last rows of each sequence.
struct Inputs {
  Inputs(const Case& c, GateLoss kind)
      : cu_rows{0}, key_blocks(c.key_blocks.begin(), c.key_blocks.end()) {
    for (const int rows : c.rows) cu_rows.push_back(cu_rows.back() + rows);
    p.num_seqs = static_cast<int>(c.rows.size());
    p.num_heads = c.heads;
    p.num_rows = cu_rows.back();
    p.num_blocks = *std::max_element(c.key_blocks.begin(), c.key_blocks.end());
    p.skip = c.skip;
    p.kind = kind;
    scores.assign(p.num_heads * p.num_rows * p.num_blocks, -INFINITY);
    target.assign(scores.size(), 0.0f);
    Random random(3);
    for (int h = 0; h < c.heads; ++h) {
      for (int b = 0; b < p.num_seqs; ++b) {
        for (int m = 0; m < c.rows[b]; ++m) {
          fill_row(random, row_at(h, cu_rows[b] + m), c.key_blocks[b] - c.rows[b] + m + 1);
        }
      }
    }
    p.target = target.data();
    p.cu_rows = cu_rows.data();
    p.num_key_blocks = key_blocks.data();
  }

  int64_t row_at(int h, int r) const { return (h * p.num_rows + r) * p.num_blocks; }

  void fill_row(Random& random, int64_t at, int seen) {
    float sum = 0;
    for (int n = 0; n < seen; ++n) {
      scores[at + n] = static_cast<float>(3 * random.normal());
      target[at + n] = n % 5 == 3 ? 0.0f : static_cast<float>(random.uniform());
      sum += target[at + n];
    }
    for (int n = 0; n < seen; ++n) target[at + n] /= sum;
  }

  double run() {
    dscores.assign(scores.size(), NAN);
    double loss = NAN;
    p.scores = scores.data();
    p.dscores = dscores.data();
    p.loss = &loss;
    gate_loss(p, {});
    return loss;
  }
  double reference_loss(const std::vector<double>& at) const { return reference::gate_loss(p, at); }

  std::vector<int32_t> cu_rows, key_blocks;
  std::vector<float> scores, target, dscores;
  GateLossParams p{};
};

class GateLossTest : public testing::TestWithParam<std::tuple<Case, GateLoss>> {};

TEST_P(GateLossTest, AgreesWithReferenceAndFiniteDifferences) {
  Inputs in(std::get<0>(GetParam()), std::get<1>(GetParam()));
  const double loss = in.run();
  std::vector<double> scores(in.scores.begin(), in.scores.end());
  EXPECT_NEAR(loss, in.reference_loss(scores), 1e-6 * (1e-3 + loss));

  float largest = 0;
  for (const float g : in.dscores) largest = std::max(largest, std::abs(g));
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isinf(scores[i])) {
      ASSERT_EQ(in.dscores[i], 0.0f) << i;
      continue;
    }
    const double kept = scores[i], step = 1e-4;
    scores[i] = kept + step;
    const double up = in.reference_loss(scores);
    scores[i] = kept - step;
    const double down = in.reference_loss(scores);
    scores[i] = kept;
    ASSERT_NEAR(in.dscores[i], (up - down) / (2 * step), 1e-5 * largest + 1e-9) << i;
  }
}

TEST_P(GateLossTest, SameForAnyNumberOfThreads) {
  Inputs in(std::get<0>(GetParam()), std::get<1>(GetParam()));
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const double one = in.run();
  const auto gradient = in.dscores;
  omp_set_num_threads(3);
  EXPECT_EQ(in.run(), one);
  EXPECT_EQ(in.dscores, gradient);
  omp_set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, GateLossTest,
    testing::Combine(testing::Values(Case{"whole", {9}, {9}, 2, 0.25},
                                     Case{"nothing_left_out", {7}, {7}, 3, 0},
                                     Case{"packed", {5, 1, 12}, {5, 1, 12}, 2, 0.25},
                                     Case{"chunk", {4, 3}, {20, 3}, 2, 0.5},
                                     Case{"empty_sequence", {0, 6}, {0, 6}, 1, 0.25},
                                     Case{"one_block", {1}, {1}, 2, 0.25},
                                     Case{"nothing", {0}, {0}, 2, 0.25}),
                     testing::Values(GateLoss::kl, GateLoss::mse)),
    [](const auto& test) {
      return std::string(std::get<0>(test.param).name) +
             (std::get<1>(test.param) == GateLoss::kl ? "_kl" : "_mse");
    });

TEST(GateLossRows, ZeroTargetAddsNothing) {
  for (const GateLoss kind : {GateLoss::kl, GateLoss::mse}) {
    Inputs in({"", {4}, {4}, 1, 0}, kind);
    const double whole = in.run();
    std::fill_n(in.target.begin() + in.row_at(0, 2), 4, 0.0f);
    const double without = in.run();
    EXPECT_LT(without, whole);
    for (int n = 0; n < 4; ++n) EXPECT_EQ(in.dscores[in.row_at(0, 2) + n], 0.0f);
    const std::vector<double> scores(in.scores.begin(), in.scores.end());
    EXPECT_NEAR(without, in.reference_loss(scores), 1e-7);
  }
}

TEST(GateLossRows, NanScoreIsSeen) {
  for (const GateLoss kind : {GateLoss::kl, GateLoss::mse}) {
    Inputs in({"", {6}, {6}, 1, 0}, kind);
    in.scores[in.row_at(0, 5) + 3] = NAN;  // where the target is 0
    EXPECT_TRUE(std::isnan(in.run()));
  }
}

TEST(GateLossRows, LargeScoresDoNotOverflow) {
  Inputs in({"", {6}, {6}, 1, 0}, GateLoss::kl);
  for (float& s : in.scores) s *= 300;
  const std::vector<double> scores(in.scores.begin(), in.scores.end());
  const double loss = in.run();
  EXPECT_TRUE(std::isfinite(loss));
  for (const float g : in.dscores) EXPECT_TRUE(std::isfinite(g));
}

TEST(GateLossRows, Refused) {
  Inputs in({"", {2}, {2}, 1, 1.0}, GateLoss::kl);
  EXPECT_THROW(in.run(), Error);
  in.p.skip = -0.5;
  EXPECT_THROW(in.run(), Error);
}

}  // namespace
}  // namespace seer::kernels
