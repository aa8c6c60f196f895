#include "seer/train/tasks/cross_entropy.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

namespace seer::train {
namespace {

struct Case {
  at::Tensor hidden, head, targets;
};

Case make_case(int64_t rows, at::ScalarType dtype) {
  at::manual_seed(3);
  return {at::randn({rows, 16}).to(dtype).requires_grad_(),
          at::randn({37, 16}).to(dtype).requires_grad_(), at::randint(0, 37, {rows}, at::kLong)};
}

// Largest difference of the gradients of x from those of y, relative to the largest of y.
double relative(const at::Tensor& x, const at::Tensor& y) {
  return ((x - y).abs().max() / y.abs().max()).item<double>();
}

TEST(ChunkedCrossEntropy, EqualsTorchWithGradients) {
  for (const int64_t rows : {1, 7, 23, 64}) {  // one row, an odd rest, all at once
    Case a = make_case(23, at::kFloat), b = make_case(23, at::kFloat);
    const at::Tensor loss = chunked_cross_entropy(a.hidden, a.head, a.targets, rows);
    const at::Tensor want = at::cross_entropy_loss(b.hidden.mm(b.head.t()), b.targets);
    EXPECT_NEAR(loss.item<double>(), want.item<double>(), 2e-6);
    (loss * 3).backward();
    (want * 3).backward();
    EXPECT_LT(relative(a.hidden.grad(), b.hidden.grad()), 2e-6) << rows;
    EXPECT_LT(relative(a.head.grad(), b.head.grad()), 2e-6) << rows;
  }
}

TEST(ChunkedCrossEntropy, Bf16StaysNearF32) {
  Case a = make_case(40, at::kBFloat16);
  const at::Tensor x = a.hidden.detach().to(at::kFloat).requires_grad_();
  const at::Tensor head = a.head.detach().to(at::kFloat).requires_grad_();
  const at::Tensor loss = chunked_cross_entropy(a.hidden, a.head, a.targets, 16);
  const at::Tensor want = at::cross_entropy_loss(x.mm(head.t()), a.targets);
  EXPECT_EQ(loss.scalar_type(), at::kFloat);
  EXPECT_NEAR(loss.item<double>(), want.item<double>(), 1e-2);
  loss.backward();
  want.backward();
  EXPECT_LT(relative(a.hidden.grad().to(at::kFloat), x.grad()), 2e-2);
  EXPECT_LT(relative(a.head.grad().to(at::kFloat), head.grad()), 2e-2);
}

TEST(ChunkedCrossEntropy, RefusesWhatDoesNotFit) {
  const Case a = make_case(5, at::kFloat);
  EXPECT_THROW(chunked_cross_entropy(a.hidden, a.head, a.targets.narrow(0, 0, 4)), std::exception);
  EXPECT_THROW(chunked_cross_entropy(a.hidden, a.head.narrow(1, 0, 8), a.targets), std::exception);
}

}  // namespace
}  // namespace seer::train
