// The CPU against the reference in double, on named odd cases; determinism; errors.

#include "seer/kernels/lookup_grad/lookup_grad.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <functional>
#include <string>

#include "seer/kernels/lookup_grad/testing/lookup_grad_case.h"

namespace seer::kernels {
namespace {

using Call = LookupGradCall;

class LookupGradCases : public testing::TestWithParam<LookupGradCase> {};

TEST_P(LookupGradCases, MatchesTheReference) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    Call call(GetParam(), dtype);
    lookup_grad(call.params());
    EXPECT_EQ(wrong_gradient(call), "") << name(dtype);
  }
}

INSTANTIATE_TEST_SUITE_P(All, LookupGradCases, testing::ValuesIn(kLookupGradCases),
                         [](const auto& info) { return std::string(info.param.name); });

// The first of equal scores, also of rows of zeros.
TEST(LookupGrad, TheFirstOfEqualQueries) {
  Call call({.name = "", .q_lens = {3}, .k_lens = {3}, .heads = 1}, DType::f32);
  for (AttentionTensor* x : {&call.q, &call.k}) x->assign(std::vector<float>(3 * 32, 0.f));
  call.lse = {1, 1, 1};
  lookup_grad(call.params());
  EXPECT_EQ(call.largest, std::vector<int32_t>{0});
  EXPECT_NE(call.sums[0], 0);
  EXPECT_EQ(call.sums[1], 0);
}

TEST(LookupGrad, SameBitsForEveryThreadCount) {
  const LookupGradCase shape = {.name = "", .q_lens = {333, 129}, .k_lens = {400, 129}, .heads = 3};
  Call one(shape, DType::bf16), many(shape, DType::bf16);
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  lookup_grad(one.params());
  omp_set_num_threads(5);
  lookup_grad(many.params());
  omp_set_num_threads(before);
  EXPECT_EQ(one.dq, many.dq);
  EXPECT_EQ(one.dk, many.dk);
}

void expect_error(const std::function<void(Call&, LookupGradParams&)>& spoil, const char* text) {
  Call call({.name = "", .q_lens = {100}, .k_lens = {100}}, DType::f32);
  LookupGradParams p = call.params();
  spoil(call, p);
  try {
    lookup_grad(p);
    FAIL() << "no error: " << text;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST(LookupGrad, ErrorsSayWhatIsWrong) {
  using P = LookupGradParams;
  expect_error([](Call&, P& p) { p.num_kv_heads = 1; }, "2 query heads and 1 key heads");
  expect_error([](Call&, P& p) { p.block = 0; }, "blocks of 0");
  expect_error([](Call&, P& p) { p.scale = -1; }, "scale is -1");
  expect_error([](Call& c, P&) { c.cu_k[1] = 99; }, "cu_k goes from 0 to 99, want 0 to 100");
  expect_error([](Call& c, P& p) { p.num_rows = c.cu_rows[1] = 1; }, "has 1 rows, want 2");
  expect_error([](Call&, P& p) { p.dtype = DType::f64; }, "lookup_score_grad: ");
}

}  // namespace
}  // namespace seer::kernels
