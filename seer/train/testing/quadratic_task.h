#pragma once
// A task for tests: noisy gradients of a parabola, the noise drawn from (seed, step, micro-batch).

#include <ATen/ATen.h>

#include <cmath>
#include <functional>
#include <limits>

#include "seer/base/random.h"
#include "seer/train/loop/loop.h"

namespace seer::train {

class QuadraticTask : public Task {
 public:
  explicit QuadraticTask(uint64_t seed = 1, int64_t micro_batches = 2)
      : seed_(seed), micro_batches_(micro_batches) {
    vector_ = at::full({6}, 3.0, at::kFloat).requires_grad_();
    matrix_ = at::full({4, 3}, -2.0, at::kFloat).requires_grad_();
  }

  std::string name() const override { return "parabola"; }
  std::vector<ParameterGroup> groups() override {
    const Schedule schedule{Schedule::Form::cosine, 3, 0, 0.1};
    return {{"vector", {{"vector", vector_}}, AdamW{}, 0.1, schedule},
            {"matrix", {{"matrix", matrix_}}, Muon{}, 0.05, schedule}};
  }
  nlohmann::json settings() const override { return {{"seed", seed_}}; }
  std::vector<std::string> files() const override { return {"result"}; }
  int64_t micro_batches(int64_t) const override { return micro_batches_; }
  int64_t tokens(int64_t) const override { return 10; }
  std::vector<std::string> metrics() const override { return {"loss", "squares"}; }

  int64_t at_once() const override { return most_at_once; }

  at::Tensor backward(int64_t step, std::span<const int64_t> micro_batches,
                      const Complete&) override {
    parts.emplace_back(micro_batches.begin(), micro_batches.end());
    at::Tensor loss;
    for (const int64_t micro_batch : micro_batches) {
      if (before_backward) before_backward(step, micro_batch);
      Random random(seed_, static_cast<uint64_t>(step * 100 + micro_batch));
      for (const at::Tensor& x : {vector_, matrix_}) {
        const auto noise = static_cast<float>(0.1 * random.normal());
        const at::Tensor square = (x + noise).square().sum() / micro_batches_;
        loss = loss.defined() ? loss + square : square;
      }
    }
    if (broken_steps && broken_steps(step)) loss = loss * std::numeric_limits<float>::quiet_NaN();
    loss.backward();
    return at::stack({loss.detach(), loss.detach().square()});
  }
  std::map<std::string, double> validate(int64_t, Ranks&) override {
    ++validations;
    return {{"square", vector_.detach().square().sum().item<double>()}};
  }

  const at::Tensor& vector() const { return vector_; }
  const at::Tensor& matrix() const { return matrix_; }

  std::function<void(int64_t, int64_t)> before_backward;
  std::function<bool(int64_t)> broken_steps;
  int validations = 0;
  int64_t most_at_once = 1;
  std::vector<std::vector<int64_t>> parts;  // micro-batches of each call of backward()

 private:
  uint64_t seed_;
  int64_t micro_batches_;
  at::Tensor vector_, matrix_;
};

}  // namespace seer::train
