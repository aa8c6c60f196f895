#pragma once
// The one place where a decoder layer meets its attention, which is a value: dense, pooled for
// distillation, or sparse (sparse_attention.h) by any of methods/.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

namespace seer::models {

// The sequences of one forward pass, packed one after another.
struct Sequences {
  std::vector<int64_t> q_lens;  // tokens given now
  std::vector<int64_t> k_lens;  // tokens with keys: the cached ones and the ones given now
  int64_t prompt_len = 0;  // chunked prefill: tokens of the complete prompt; 0: this is all of it
  int64_t num_tokens() const;  // sum of q_lens
  bool equal_lengths() const;  // all q_lens equal and q_lens == k_lens
  int64_t longest() const;     // tokens of the longest: the length that RoPE scalings go by
};

class SequenceCache;

// What one layer's attention is computed from. Token and head strides are free; features
// contiguous.
struct AttentionInput {
  int layer;
  const Sequences& sequences;
  at::Tensor q_plain;  // [T, Hq, D]  before RoPE, after bias and q-norm: what gates read
  at::Tensor k_plain;  // [T, Hk, D]  the tokens given now only
  at::Tensor q;        // [T, Hq, D]  after RoPE
  at::Tensor k;        // [S, Hk, D]  after RoPE, cached ones included
  at::Tensor v;        // [S, Hk, D]
  double scale;        // 1 / sqrt(D)
  int64_t window;      // tokens a query sees back, itself included; 0: all
  SequenceCache* cache = nullptr;  // of the sequence, where it has one; k and v are in it already
};

// -> o [T, Hq, D]
using Attention = std::function<at::Tensor(const AttentionInput&)>;

// True where the layer's sliding window hides keys: some sequence is longer than it, or will be
// once all of its chunks are there.
bool window_cuts(const AttentionInput& input);

// Causal dense attention; differentiable. A few tokens at the end of each sequence, a decode step, are
// decode_attn's where no gradient is wanted; all else is torch's scaled_dot_product_attention. Sliding
// windows and unequal lengths are computed in pieces, so nothing grows with the square of the length.
at::Tensor dense_attention(const AttentionInput& input);

}  // namespace seer::models
