#pragma once
// AdamW and Muon on f32 master weights. Whether a step counts is decided on the device, so that a
// training step never waits for it.

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "seer/train/loop/staging.h"

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

// A master weight and its gradient, f32 and contiguous. Values may be in host memory and gradients on a GPU:
// states then are where the values are.
struct Weight {
  std::string name;
  at::Tensor value, gradient;
};

class Optimizer {
 public:
  virtual ~Optimizer() = default;
  // One step from the gradients. `skip` [] f32 on their device: 1 leaves values and states as they are
  // (the gradients may then be NaN), 0 makes the step.
  virtual void step(double learning_rate, const at::Tensor& skip) = 0;
  // (name, tensor) of everything that a resumed run needs; written in place when it is loaded.
  virtual std::vector<std::pair<std::string, at::Tensor>> state() const = 0;
};

// `staging`: null, or values are in host memory, to which gradients travel; it outlives the optimizer. Of
// weights on the meta device the state has names and shapes only. Error: a weight of Muon that is not a
// matrix.
std::unique_ptr<Optimizer> make_optimizer(const Rule& rule, const std::vector<Weight>& weights,
                                          Staging* staging = nullptr);

// X [n, r, c] -> the nearest semi-orthogonal matrices, about: singular values come within 0.7 ...
// 1.2. Quintic Newton-Schulz; bf16 on CUDA, f32 on the CPU.
at::Tensor orthogonalise(const at::Tensor& x, int iterations);

}  // namespace seer::train
