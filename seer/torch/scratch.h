#pragma once
// Device memory that a kernel needs beside its results.

#include <ATen/core/Tensor.h>

#include "seer/torch/checks.h"

namespace seer::torch_ops {

// int32 [1], on x's device: zero, and to be zero again after each use. Calls on one stream share it;
// while a graph is captured each call gets one of its own, which the graph sets to zero.
at::Tensor zero_counter(const at::Tensor& x, const Queue& queue);

}  // namespace seer::torch_ops
