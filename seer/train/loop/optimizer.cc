#include "seer/train/loop/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_fused_adamw.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/lerp.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "seer/base/allowed.h"
#include "seer/base/error.h"

namespace seer::train {
namespace {

// Elements of the matrices that are orthogonalised together where they come from host memory.
constexpr int64_t kMostStaged = 64 << 20;

using Tensors = std::vector<at::Tensor>;

class AdamWOptimizer : public Optimizer {
 public:
  AdamWOptimizer(const AdamW& rule, const std::vector<Weight>& weights, Staging* staging)
      : rule_(rule), staging_(staging) {
    for (const auto& [name, value, gradient] : weights) {
      names_.push_back(name);
      values_.push_back(value);
      gradients_.push_back(gradient);
      first_.push_back(at::zeros_like(value));
      second_.push_back(at::zeros_like(value));
      counts_.push_back(at::zeros({}, value.options()));
    }
  }

  void step(double learning_rate, const at::Tensor& skip) override {
    const at::Tensor skipped = skip.to(counts_[0].device());
    at::_foreach_add_(counts_, 1);
    const auto update = [&](const Tensors& values, const Tensors& gradients, const Tensors& first,
                            const Tensors& second, const Tensors& counts) {
      at::_fused_adamw_(values, gradients, first, second, {}, counts, learning_rate, rule_.beta1,
                        rule_.beta2, rule_.weight_decay, rule_.eps, /*amsgrad=*/false,
                        /*maximize=*/false, /*grad_scale=*/std::nullopt, skipped);
    };
    if (staging_ == nullptr) {
      update(values_, gradients_, first_, second_, counts_);
    } else {
      staging_->down(gradients_, [&](size_t i, int64_t begin, const at::Tensor& gradient) {
        const auto part = [&](const Tensors& all) -> Tensors {
          return {all[i].view(-1).narrow(0, begin, gradient.numel())};
        };
        update(part(values_), {gradient}, part(first_), part(second_), {counts_[i]});
      });
    }
    for (at::Tensor& count : counts_) count.sub_(skipped);
  }

  std::vector<std::pair<std::string, at::Tensor>> state() const override {
    std::vector<std::pair<std::string, at::Tensor>> all;
    for (size_t i = 0; i < names_.size(); ++i) {
      all.emplace_back(names_[i] + ".first_moment", first_[i]);
      all.emplace_back(names_[i] + ".second_moment", second_[i]);
      all.emplace_back(names_[i] + ".steps", counts_[i]);
    }
    return all;
  }

 private:
  AdamW rule_;
  Staging* staging_;
  std::vector<std::string> names_;
  Tensors values_, gradients_, first_, second_, counts_;
};

// Works on the device of the gradients.
class MuonOptimizer : public Optimizer {
 public:
  MuonOptimizer(const Muon& rule, const std::vector<Weight>& weights, bool is_staged)
      : rule_(rule) {
    std::map<std::vector<int64_t>, Stack> open;
    for (const auto& [name, value, gradient] : weights) {
      SEER_CHECK(value.dim() == 2, "parameter ", name, " has ", value.dim(),
                 " axes; Muon takes matrices");
      Stack& stack = open[value.sizes().vec()];
      stack.names.push_back(name);
      stack.values.push_back(value);
      stack.gradients.push_back(gradient);
      if (!is_staged || stack.elements() < kMostStaged) continue;
      stacks_.push_back(std::exchange(stack, {}));
    }
    for (auto& [shape, stack] : open) {
      if (!stack.names.empty()) stacks_.push_back(std::move(stack));
    }
    for (Stack& stack : stacks_) {
      const at::Tensor& value = stack.values[0];
      stack.momentum =
          at::zeros({static_cast<int64_t>(stack.values.size()), value.size(0), value.size(1)},
                    value.options());
    }
  }

  void step(double learning_rate, const at::Tensor& skip) override {
    const at::Tensor skipped = skip.to(at::kBool);
    for (Stack& stack : stacks_) {
      const at::Device home = stack.momentum.device();
      const at::Tensor gradient = at::stack(stack.gradients);
      const at::Tensor before = stack.momentum.to(gradient.device());
      const at::Tensor momentum = before.lerp(gradient, 1 - rule_.momentum);
      stack.momentum.copy_(at::where(skipped, before, momentum));
      at::Tensor update = orthogonalise(gradient.lerp(momentum, rule_.momentum), rule_.iterations);
      update = at::where(skipped, at::zeros({}, update.options()), update);
      const double aspect =
          static_cast<double>(update.size(1)) / static_cast<double>(update.size(2));
      const at::Tensor decay = (skip - 1).mul_(learning_rate * rule_.weight_decay).add_(1);
      at::_foreach_mul_(stack.values, decay.to(home));
      at::_foreach_add_(stack.values, update.to(home).unbind(),
                        -learning_rate * std::sqrt(std::max(1.0, aspect)));
    }
  }

  std::vector<std::pair<std::string, at::Tensor>> state() const override {
    std::vector<std::pair<std::string, at::Tensor>> all;
    for (const Stack& stack : stacks_) {
      for (size_t i = 0; i < stack.names.size(); ++i) {
        all.emplace_back(stack.names[i] + ".momentum", stack.momentum[static_cast<int64_t>(i)]);
      }
    }
    return all;
  }

 private:
  // Matrices of one shape: orthogonalised together, in a few large products.
  struct Stack {
    std::vector<std::string> names;
    Tensors values, gradients;
    at::Tensor momentum;  // [n, out, in]

    int64_t elements() const { return static_cast<int64_t>(values.size()) * values[0].numel(); }
  };
  Muon rule_;
  std::vector<Stack> stacks_;
};

}  // namespace

void check(const AdamW& rule) {
  const CheckSetting check;
  check("beta1 of AdamW", rule.beta1, below(0, 1));
  check("beta2 of AdamW", rule.beta2, below(0, 1));
  check("eps of AdamW", rule.eps, above(0, 1));
  check("weight_decay", rule.weight_decay, range(0, 100));
}

void check(const Muon& rule) {
  const CheckSetting check;
  check("momentum of Muon", rule.momentum, below(0, 1));
  check("iterations of Muon", rule.iterations, range(1, 100));
  check("weight_decay of Muon", rule.weight_decay, range(0, 100));
}

at::Tensor orthogonalise(const at::Tensor& x, int iterations) {
  // Coefficients that push small singular values up as fast as possible (Jordan et al., 2024).
  constexpr double a = 3.4445, b = -4.7750, c = 2.0315;
  at::Tensor y = x.is_cuda() ? x.to(at::kBFloat16) : x.to(at::kFloat);
  const bool is_tall = y.size(1) > y.size(2);
  if (is_tall) y = y.transpose(1, 2);
  y = y / (at::linalg_vector_norm(y, 2, at::IntArrayRef{1, 2}, /*keepdim=*/true) + 1e-7);
  for (int i = 0; i < iterations; ++i) {
    const at::Tensor square = at::bmm(y, y.transpose(1, 2));
    const at::Tensor polynomial = at::baddbmm(square, square, square, b, c);
    y = at::baddbmm(y, polynomial, y, a, 1);
  }
  if (is_tall) y = y.transpose(1, 2);
  return y.to(x.scalar_type());
}

std::unique_ptr<Optimizer> make_optimizer(const Rule& rule, const std::vector<Weight>& weights,
                                          Staging* staging) {
  if (const auto* adamw = std::get_if<AdamW>(&rule)) {
    return std::make_unique<AdamWOptimizer>(*adamw, weights, staging);
  }
  return std::make_unique<MuonOptimizer>(std::get<Muon>(rule), weights, staging != nullptr);
}

}  // namespace seer::train
