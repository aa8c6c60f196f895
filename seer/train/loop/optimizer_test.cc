#include "seer/train/loop/optimizer.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "seer/base/random.h"

namespace seer::train {
namespace {

at::Tensor random_tensor(at::IntArrayRef shape, uint64_t stream) {
  const at::Tensor tensor = at::empty(shape, at::kFloat);
  Random random(7, stream);
  float* data = tensor.mutable_data_ptr<float>();
  for (int64_t i = 0; i < tensor.numel(); ++i) data[i] = static_cast<float>(random.normal());
  return tensor;
}

at::Tensor parameter(at::IntArrayRef shape, uint64_t stream) {
  at::Tensor tensor = random_tensor(shape, stream).requires_grad_();
  tensor.mutable_grad() = at::zeros(shape, at::kFloat);
  return tensor;
}

std::vector<Weight> weights(const std::vector<std::pair<std::string, at::Tensor>>& parameters) {
  std::vector<Weight> all;
  for (const auto& [name, leaf] : parameters) all.push_back({name, leaf.detach(), leaf.grad()});
  return all;
}

const at::Tensor kStep = at::zeros({});
const at::Tensor kSkip = at::ones({});

TEST(AdamW, FollowsTheFormulaInDouble) {
  const AdamW rule{0.9, 0.95, 1e-8, 0.1};
  at::Tensor w = parameter({3, 5}, 1);
  const auto optimizer = make_optimizer(rule, weights({{"w", w}}));
  at::Tensor x = w.detach().to(at::kDouble).clone();
  at::Tensor m = at::zeros_like(x), v = at::zeros_like(x);
  const double rates[] = {1e-2, 3e-2, 5e-3, 1e-2};
  for (int t = 1; t <= 4; ++t) {
    const at::Tensor g = random_tensor({3, 5}, 100 + t);
    w.mutable_grad().copy_(g);
    const double lr = rates[t - 1];
    optimizer->step(lr, kStep);
    const at::Tensor gd = g.to(at::kDouble);
    m = m * rule.beta1 + gd * (1 - rule.beta1);
    v = v * rule.beta2 + gd * gd * (1 - rule.beta2);
    x = x * (1 - lr * rule.weight_decay);
    x = x - lr * (m / (1 - std::pow(rule.beta1, t))) /
                ((v / (1 - std::pow(rule.beta2, t))).sqrt() + rule.eps);
    EXPECT_LT((w.detach() - x).abs().max().item<double>(), 1e-6) << "step " << t;
  }
}

TEST(AdamW, ASkippedStepLeavesNoTrace) {
  at::Tensor w = parameter({4}, 1), same = parameter({4}, 1);
  const auto optimizer = make_optimizer(AdamW{}, weights({{"w", w}}));
  const auto other = make_optimizer(AdamW{}, weights({{"w", same}}));
  for (int t = 0; t < 3; ++t) {
    if (t == 1) {
      w.mutable_grad().fill_(std::numeric_limits<float>::quiet_NaN());
      optimizer->step(0.1, kSkip);
    }
    const at::Tensor g = random_tensor({4}, 50 + t);
    w.mutable_grad().copy_(g);
    same.mutable_grad().copy_(g);
    optimizer->step(0.1, kStep);
    other->step(0.1, kStep);
  }
  EXPECT_TRUE(at::equal(w, same));
}

// One matrix, in double: the update of Muon as published.
at::Tensor muon_update(const at::Tensor& gradient, at::Tensor& momentum) {
  momentum = momentum * 0.95 + gradient * 0.05;
  at::Tensor x = gradient * 0.05 + momentum * 0.95;
  const bool is_tall = x.size(0) > x.size(1);
  if (is_tall) x = x.t();
  x = x / (x.norm() + 1e-7);
  for (int i = 0; i < 5; ++i) {
    const at::Tensor a = x.mm(x.t());
    x = 3.4445 * x + (-4.7750 * a + 2.0315 * a.mm(a)).mm(x);
  }
  return is_tall ? x.t() : x;
}

TEST(Muon, FollowsTheFormulaForStackedShapes) {
  std::vector<std::pair<std::string, at::Tensor>> parameters = {
      {"a", parameter({6, 4}, 1)}, {"b", parameter({4, 6}, 2)}, {"c", parameter({6, 4}, 3)}};
  Muon rule;
  rule.weight_decay = 0.1;
  const auto optimizer = make_optimizer(rule, weights(parameters));
  std::vector<at::Tensor> x, momentum;
  for (const auto& [name, w] : parameters) {
    x.push_back(w.detach().to(at::kDouble).clone());
    momentum.push_back(at::zeros_like(x.back()));
  }
  for (int t = 0; t < 3; ++t) {
    for (size_t i = 0; i < parameters.size(); ++i) {
      at::Tensor& w = parameters[i].second;
      w.mutable_grad().copy_(random_tensor(w.sizes(), 10 * t + i));
      const at::Tensor update = muon_update(w.grad().to(at::kDouble), momentum[i]);
      const double factor = w.size(0) > w.size(1) ? std::sqrt(1.5) : 1;
      x[i] = x[i] * (1 - 0.02 * rule.weight_decay) - 0.02 * factor * update;
    }
    optimizer->step(0.02, kStep);
  }
  for (size_t i = 0; i < x.size(); ++i) {
    EXPECT_LT((parameters[i].second.detach() - x[i]).abs().max().item<double>(), 2e-6);
  }
}

TEST(Muon, ASkippedStepLeavesNoTrace) {
  at::Tensor w = parameter({4, 3}, 1);
  const at::Tensor before = w.detach().clone();
  const auto optimizer = make_optimizer(Muon{}, weights({{"w", w}}));
  w.mutable_grad().fill_(std::numeric_limits<float>::infinity());
  optimizer->step(0.1, kSkip);
  EXPECT_TRUE(at::equal(w.detach(), before));
  for (const auto& [name, state] : optimizer->state()) {
    EXPECT_EQ(state.abs().max().item<float>(), 0) << name;
  }
}

// In pieces, the last of a tensor not full; buffers are used again and again.
TEST(Optimizers, GradientsThatAreStagedGiveTheSameBits) {
  for (const Rule& rule : {Rule(AdamW{0.9, 0.95, 1e-8, 0.1}), Rule(Muon{})}) {
    std::vector<std::pair<std::string, at::Tensor>> here, staged;
    for (const int64_t rows : {5, 41, 5}) {
      const std::string name = "w" + std::to_string(here.size());
      here.emplace_back(name, parameter({rows, 30}, 1));
      staged.emplace_back(name, parameter({rows, 30}, 1));
    }
    Staging staging(at::kCPU, /*piece=*/128);
    const auto one = make_optimizer(rule, weights(here)),
               two = make_optimizer(rule, weights(staged), &staging);
    for (int t = 0; t < 4; ++t) {
      for (size_t i = 0; i < here.size(); ++i) {
        const at::Tensor g = random_tensor(here[i].second.sizes(), 10 * t + i);
        here[i].second.mutable_grad().copy_(g);
        staged[i].second.mutable_grad().copy_(g);
      }
      for (const auto& optimizer : {one.get(), two.get()}) {
        optimizer->step(0.1, t == 2 ? kSkip : kStep);
      }
    }
    for (size_t i = 0; i < here.size(); ++i) {
      EXPECT_TRUE(at::equal(here[i].second, staged[i].second)) << i;
      EXPECT_FALSE(at::equal(here[i].second, parameter(here[i].second.sizes(), 1)));
    }
    const auto states = one->state(), others = two->state();
    for (size_t i = 0; i < states.size(); ++i) {
      EXPECT_EQ(states[i].first, others[i].first);
      EXPECT_TRUE(at::equal(states[i].second, others[i].second)) << states[i].first;
    }
  }
}

TEST(Staging, WhatIsFilledArrives) {
  Staging staging(at::kCPU, 4);
  const std::vector<at::Tensor> tensors{at::zeros({3, 3}, at::kBFloat16),
                                        at::zeros({2}, at::kBFloat16)};
  staging.up(tensors, [](size_t i, int64_t begin, const at::Tensor& buffer) {
    buffer.copy_(at::arange(begin, begin + buffer.numel()) + 100 * static_cast<int64_t>(i));
  });
  EXPECT_TRUE(at::equal(tensors[0], at::arange(9).view({3, 3}).to(at::kBFloat16)));
  EXPECT_TRUE(at::equal(tensors[1], (at::arange(2) + 100).to(at::kBFloat16)));
}

TEST(Muon, SingularValuesComeNearOne) {
  const at::Tensor x = random_tensor({2, 32, 48}, 5);
  const at::Tensor values = std::get<1>(at::linalg_svd(orthogonalise(x, 5)));
  EXPECT_GT(values.min().item<double>(), 0.3);
  EXPECT_LT(values.max().item<double>(), 1.3);
}

TEST(Muon, RefusesVectors) {
  EXPECT_THROW(make_optimizer(Muon{}, weights({{"norm", parameter({4}, 1)}})), std::exception);
}

}  // namespace
}  // namespace seer::train
