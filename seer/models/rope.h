#pragma once
// Rotary position embedding on tensors: tables at given positions, and q and k rotated by them
// (rotate-half).

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>

#include "seer/base/rope_table.h"

namespace seer::models {

// positions int64 [n] -> cos, sin [n, rotary_dim / 2] f32, attention factor included, on the device
// of the positions, for a model that runs at `length` tokens. Angles are f32 products, as in
// transformers.
std::pair<at::Tensor, at::Tensor> rope_tables(const RopeConfig& config, const at::Tensor& positions,
                                              int64_t length);

// x [T, H, D]; cos, sin [T, w / 2] in the type of x. Features i and i + w / 2 are a pair that
// rotates; those from w on pass. Differentiable in x.
at::Tensor apply_rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin);

}  // namespace seer::models
