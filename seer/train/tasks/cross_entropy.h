#pragma once
// Cross-entropy of a large vocabulary: logits exist for some rows at a time, and their gradient is
// taken at once, so that nothing of size [T, vocab] is ever kept.

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace seer::train {

// hidden [T, hidden], head [vocab, hidden] of one dtype, targets int64 [T] -> mean negative
// log-likelihood [] f32 (nats). Differentiable in hidden and head; softmax in f32. `rows`: rows of
// logits at a time; 0: a number that suits the device.
at::Tensor chunked_cross_entropy(const at::Tensor& hidden, const at::Tensor& head,
                                 const at::Tensor& targets, int64_t rows = 0);

}  // namespace seer::train
