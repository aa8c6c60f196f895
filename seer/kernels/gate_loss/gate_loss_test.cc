// The loss against plain loops in double, its gradient against finite differences of them.

#include "seer/kernels/gate_loss/gate_loss.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include "seer/kernels/gate_loss/reference.h"
#include "seer/kernels/gate_loss/testing/gate_loss_cases.h"

namespace seer::kernels {
namespace {

class GateLossTest : public testing::TestWithParam<std::tuple<GateLossCase, GateLoss>> {};

TEST_P(GateLossTest, AgreesWithReferenceAndFiniteDifferences) {
  GateLossInputs in(std::get<0>(GetParam()), std::get<1>(GetParam()));
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
  GateLossInputs in(std::get<0>(GetParam()), std::get<1>(GetParam()));
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const double one = in.run();
  const auto gradient = in.dscores;
  omp_set_num_threads(3);
  EXPECT_EQ(in.run(), one);
  EXPECT_EQ(in.dscores, gradient);
  omp_set_num_threads(before);
}

INSTANTIATE_TEST_SUITE_P(Cases, GateLossTest,
                         testing::Combine(testing::ValuesIn(kGateLossCases),
                                          testing::Values(GateLoss::kl, GateLoss::mse)),
                         [](const auto& test) {
                           return std::string(std::get<0>(test.param).name) +
                                  (std::get<1>(test.param) == GateLoss::kl ? "_kl" : "_mse");
                         });

TEST(GateLossRows, ZeroTargetAddsNothing) {
  for (const GateLoss kind : {GateLoss::kl, GateLoss::mse}) {
    GateLossInputs in({"", {4}, {4}, 1, 0}, kind);
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
    GateLossInputs in({"", {6}, {6}, 1, 0}, kind);
    in.scores[in.row_at(0, 5) + 3] = NAN;  // where the target is 0
    EXPECT_TRUE(std::isnan(in.run()));
    std::fill_n(in.target.begin() + in.row_at(0, 5), 6, 0);  // and nowhere in its row
    EXPECT_TRUE(std::isnan(in.run()));
  }
}

TEST(GateLossRows, TargetOnAMaskedBlockIsAnError) {
  for (const GateLoss kind : {GateLoss::kl, GateLoss::mse}) {
    for (const float mass : {1e-6f, NAN}) {
      GateLossInputs in({"", {6}, {6}, 2, 0.25}, kind);
      in.target[in.row_at(1, 3) + 4] = mass;
      const std::vector<double> scores(in.scores.begin(), in.scores.end());
      EXPECT_TRUE(std::isnan(in.reference_loss(scores)));
      try {
        in.run();
        ADD_FAILURE();
      } catch (const Error& error) {
        EXPECT_NE(std::string(error.what()).find("target of head 1, row 3 has mass on a masked"),
                  std::string::npos)
            << error.what();
      }
    }
    GateLossInputs left_out({"", {6}, {6}, 2, 0.25}, kind);
    left_out.target[left_out.row_at(1, 0) + 4] = 1;
    EXPECT_TRUE(std::isfinite(left_out.run()));
  }
}

TEST(GateLossRows, LargeScoresDoNotOverflow) {
  GateLossInputs in({"", {6}, {6}, 1, 0}, GateLoss::kl);
  for (float& s : in.scores) s *= 300;
  const std::vector<double> scores(in.scores.begin(), in.scores.end());
  const double loss = in.run();
  EXPECT_TRUE(std::isfinite(loss));
  for (const float g : in.dscores) EXPECT_TRUE(std::isfinite(g));
}

TEST(GateLossRows, Refused) {
  GateLossInputs in({"", {2}, {2}, 1, 1.0}, GateLoss::kl);
  EXPECT_THROW(in.run(), Error);
  in.p.skip = -0.5;
  EXPECT_THROW(in.run(), Error);
}

}  // namespace
}  // namespace seer::kernels
