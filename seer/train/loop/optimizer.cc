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

#include "seer/base/allowed.h"
#include "seer/base/error.h"

namespace seer::train {
namespace {

using Parameters = std::vector<std::pair<std::string, at::Tensor>>;

// Tensors without their graph, in the order given.
std::vector<at::Tensor> values_of(const Parameters& parameters) {
  std::vector<at::Tensor> values;
  for (const auto& [name, tensor] : parameters) values.push_back(tensor.detach());
  return values;
}

std::vector<at::Tensor> gradients_of(const Parameters& parameters) {
  std::vector<at::Tensor> gradients;
  for (const auto& [name, tensor] : parameters) {
    SEER_CHECK(tensor.grad().defined(), "parameter ", name, " has no gradient tensor");
    gradients.push_back(tensor.grad());
  }
  return gradients;
}

class AdamWOptimizer : public Optimizer {
 public:
  AdamWOptimizer(const AdamW& rule, const Parameters& parameters)
      : rule_(rule), values_(values_of(parameters)), gradients_(gradients_of(parameters)) {
    for (const auto& [name, tensor] : parameters) {
      names_.push_back(name);
      first_.push_back(at::zeros_like(tensor.detach()));
      second_.push_back(at::zeros_like(tensor.detach()));
      counts_.push_back(at::zeros({}, tensor.detach().options().dtype(at::kFloat)));
    }
  }

  void step(double learning_rate, const at::Tensor& skip) override {
    at::_foreach_add_(counts_, 1);
    at::_fused_adamw_(values_, gradients_, first_, second_, {}, counts_, learning_rate, rule_.beta1,
                      rule_.beta2, rule_.weight_decay, rule_.eps, /*amsgrad=*/false,
                      /*maximize=*/false, /*grad_scale=*/std::nullopt, skip);
    for (at::Tensor& count : counts_) count.sub_(skip);
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
  std::vector<std::string> names_;
  std::vector<at::Tensor> values_, gradients_, first_, second_, counts_;
};

class MuonOptimizer : public Optimizer {
 public:
  MuonOptimizer(const Muon& rule, const Parameters& parameters) : rule_(rule) {
    std::map<std::vector<int64_t>, Parameters> by_shape;
    for (const auto& parameter : parameters) {
      SEER_CHECK(parameter.second.dim() == 2, "parameter ", parameter.first, " has ",
                 parameter.second.dim(), " axes; Muon takes matrices");
      by_shape[parameter.second.sizes().vec()].push_back(parameter);
    }
    for (const auto& [shape, some] : by_shape) {
      Stack stack{some[0].first, values_of(some), gradients_of(some), {}};
      stack.momentum = at::zeros({static_cast<int64_t>(some.size()), shape[0], shape[1]},
                                 some[0].second.detach().options());
      stacks_.push_back(std::move(stack));
    }
  }

  void step(double learning_rate, const at::Tensor& skip) override {
    const at::Tensor skipped = skip.to(at::kBool);
    const at::Tensor decay = (skip - 1).mul_(learning_rate * rule_.weight_decay).add_(1);
    for (Stack& stack : stacks_) {
      const at::Tensor gradient = at::stack(stack.gradients);
      const at::Tensor momentum = stack.momentum.lerp(gradient, 1 - rule_.momentum);
      stack.momentum.copy_(at::where(skipped, stack.momentum, momentum));
      at::Tensor update = orthogonalise(gradient.lerp(momentum, rule_.momentum), rule_.iterations);
      update = at::where(skipped, at::zeros({}, update.options()), update);
      const double aspect =
          static_cast<double>(update.size(1)) / static_cast<double>(update.size(2));
      at::_foreach_mul_(stack.values, decay);
      at::_foreach_add_(stack.values, update.unbind(),
                        -learning_rate * std::sqrt(std::max(1.0, aspect)));
    }
  }

  std::vector<std::pair<std::string, at::Tensor>> state() const override {
    std::vector<std::pair<std::string, at::Tensor>> all;
    for (const Stack& stack : stacks_) {
      // One tensor for all matrices of a shape, under the name of the first.
      all.emplace_back(stack.name + ".momentum_of_shape", stack.momentum);
    }
    return all;
  }

 private:
  // Matrices of one shape: orthogonalised together, in a few large products.
  struct Stack {
    std::string name;
    std::vector<at::Tensor> values, gradients;
    at::Tensor momentum;  // [n, out, in]
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

std::unique_ptr<Optimizer> make_optimizer(const Rule& rule, const Parameters& parameters) {
  if (const auto* adamw = std::get_if<AdamW>(&rule)) {
    return std::make_unique<AdamWOptimizer>(*adamw, parameters);
  }
  return std::make_unique<MuonOptimizer>(std::get<Muon>(rule), parameters);
}

}  // namespace seer::train
