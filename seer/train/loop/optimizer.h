#pragma once
// AdamW and Muon on f32 master weights. Whether a step counts is decided on the device, so that a
// training step never waits for it.

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace seer::train {

// Decoupled weight decay (Loshchilov and Hutter, arXiv 1711.05101); numbers as torch.optim.AdamW.
struct AdamW {
  double beta1 = 0.9, beta2 = 0.999, eps = 1e-8;
  double weight_decay = 0;
};

// Momentum, orthogonalised by Newton-Schulz steps (Jordan et al., 2024), for matrices [out, in].
// The update is scaled by sqrt(max(1, out / in)).
struct Muon {
  double momentum = 0.95;  // Nesterov
  int iterations = 5;
  double weight_decay = 0.01;
};

// UsageError where a value is not allowed.
void check(const AdamW& rule);
void check(const Muon& rule);

using Rule = std::variant<AdamW, Muon>;

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // One step from the parameters' gradients. `skip` [] f32 on their device: 1 leaves parameters and
  // states as they are (the gradients may then be NaN), 0 makes the step.
  virtual void step(double learning_rate, const at::Tensor& skip) = 0;
  // (name, tensor) of everything that a resumed run needs; written in place when it is loaded.
  virtual std::vector<std::pair<std::string, at::Tensor>> state() const = 0;
};

// `parameters`: (name, f32 leaf with a defined gradient tensor that stays the same). Error: a
// parameter of Muon that is not a matrix.
std::unique_ptr<Optimizer> make_optimizer(
    const Rule& rule, const std::vector<std::pair<std::string, at::Tensor>>& parameters);

// X [n, r, c] -> the nearest semi-orthogonal matrices, about: singular values come within 0.7 ...
// 1.2. Quintic Newton-Schulz; bf16 on CUDA, f32 on the CPU.
at::Tensor orthogonalise(const at::Tensor& x, int iterations);

}  // namespace seer::train
