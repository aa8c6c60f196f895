// The loss on a GPU against plain loops in double, its gradient against the CPU's, as a call and as a
// graph.

#include <gtest/gtest.h>

#include <cstring>

#include "seer/kernels/gate_loss/testing/gate_loss_cases.h"
#include "seer/kernels/testing/gpu_run.h"

namespace seer::kernels {
namespace {

struct Result {
  double loss;
  std::vector<float> dscores;
};

Result run_on_gpu(const GateLossInputs& in) {
  const Device device = cuda_device(0);
  const DeviceBuffer scores(in.scores), target(in.target), cu_rows(in.cu_rows);
  const DeviceBuffer key_blocks(in.key_blocks), dscores(in.scores.size() * sizeof(float));
  const DeviceBuffer loss(sizeof(double));
  const DeviceBuffer row_losses(in.p.num_heads * in.p.num_rows * sizeof(double));
  GateLossParams p = in.p;
  p.scores = scores.as<float>();
  p.target = target.as<float>();
  p.cu_rows = cu_rows.as<int32_t>();
  p.num_key_blocks = key_blocks.as<int32_t>();
  p.dscores = dscores.as<float>();
  p.loss = loss.as<double>();
  p.row_losses = row_losses.as<double>();
  const auto read = [&] {
    std::vector<double> number(1);
    Result out{0, std::vector<float>(in.scores.size())};
    loss.download(number);
    dscores.download(out.dscores);
    out.loss = number[0];
    return out;
  };
  gate_loss(p, device);
  const Result first = read();
  run_captured([&](void* stream) { gate_loss(p, device, stream); });
  const Result again = read();
  EXPECT_EQ(std::memcmp(&first.loss, &again.loss, sizeof(double)), 0);
  EXPECT_EQ(
      std::memcmp(first.dscores.data(), again.dscores.data(), first.dscores.size() * sizeof(float)),
      0);
  return first;
}

void expect_same(GateLossInputs in) {
  const double loss = in.run();
  const Result got = run_on_gpu(in);
  EXPECT_NEAR(got.loss, in.reference_loss({in.scores.begin(), in.scores.end()}),
              1e-6 * (1e-3 + loss));
  float largest = 0;
  for (const float g : in.dscores) largest = std::max(largest, std::abs(g));
  for (size_t i = 0; i < in.dscores.size(); ++i) {
    ASSERT_NEAR(got.dscores[i], in.dscores[i], 2e-6 * largest) << i;
    if (std::isinf(in.scores[i])) ASSERT_EQ(got.dscores[i], 0.0f) << i;
  }
}

class GateLossGpu : public OnGpu<testing::TestWithParam<std::tuple<GateLossCase, GateLoss>>> {};

TEST_P(GateLossGpu, AgreesWithReferenceAndCpu) {
  expect_same(GateLossInputs(std::get<0>(GetParam()), std::get<1>(GetParam())));
}

const GateLossCase kLongCase = {"long_rows", {70, 300, 0, 9}, {700, 300, 5, 9}, 3, 0.25};

std::string name_of(const testing::TestParamInfo<GateLossGpu::ParamType>& test) {
  return std::string(std::get<0>(test.param).name) +
         (std::get<1>(test.param) == GateLoss::kl ? "_kl" : "_mse");
}

INSTANTIATE_TEST_SUITE_P(Cases, GateLossGpu,
                         testing::Combine(testing::ValuesIn(kGateLossCases),
                                          testing::Values(GateLoss::kl, GateLoss::mse)),
                         name_of);
INSTANTIATE_TEST_SUITE_P(Long, GateLossGpu,
                         testing::Combine(testing::Values(kLongCase),
                                          testing::Values(GateLoss::kl, GateLoss::mse)),
                         name_of);

class GateLossGpuRows : public OnGpu<> {};

TEST_F(GateLossGpuRows, ZeroTargetAddsNothing) {
  for (const GateLoss kind : {GateLoss::kl, GateLoss::mse}) {
    GateLossInputs in({"", {4}, {4}, 1, 0}, kind);
    std::fill_n(in.target.begin() + in.row_at(0, 2), 4, 0.0f);
    expect_same(in);
  }
}

TEST_F(GateLossGpuRows, NanScoreIsSeen) {
  for (const GateLoss kind : {GateLoss::kl, GateLoss::mse}) {
    GateLossInputs in({"", {6}, {6}, 1, 0}, kind);
    in.scores[in.row_at(0, 5) + 3] = NAN;  // where the target is 0
    EXPECT_TRUE(std::isnan(run_on_gpu(in).loss));
    std::fill_n(in.scores.begin() + in.row_at(0, 5), 6, NAN);
    EXPECT_TRUE(std::isnan(run_on_gpu(in).loss));
    std::fill_n(in.target.begin() + in.row_at(0, 5), 6, 0);  // and nowhere in its row
    EXPECT_TRUE(std::isnan(run_on_gpu(in).loss));
  }
}

TEST_F(GateLossGpuRows, TargetOnAMaskedBlockMakesTheLossNan) {
  for (const GateLoss kind : {GateLoss::kl, GateLoss::mse}) {
    GateLossInputs in({"", {6}, {6}, 1, 0}, kind);
    in.target[in.row_at(0, 3) + 4] = 1e-6f;
    EXPECT_TRUE(std::isnan(run_on_gpu(in).loss));
    std::fill_n(in.scores.begin() + in.row_at(0, 3), 6, -INFINITY);  // the whole row masked
    EXPECT_TRUE(std::isnan(run_on_gpu(in).loss));
  }
}

TEST_F(GateLossGpuRows, LargeScoresDoNotOverflow) {
  GateLossInputs in({"", {6}, {6}, 1, 0}, GateLoss::kl);
  for (float& s : in.scores) s *= 300;
  const Result got = run_on_gpu(in);
  EXPECT_TRUE(std::isfinite(got.loss));
  for (const float g : got.dscores) EXPECT_TRUE(std::isfinite(g));
}

TEST(GateLossGpuErrors, NoRowLosses) {
  GateLossInputs in({"", {2}, {2}, 1, 0}, GateLoss::kl);
  EXPECT_THROW(gate_loss(in.p, Device{.sm = 80, .num_sms = 100}), Error);
}

}  // namespace
}  // namespace seer::kernels
