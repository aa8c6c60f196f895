#pragma once
// The arithmetic of the backward on a CPU: one tile of queries against one key block, in f32,
// compiled for each instruction set.

#include <cstdint>

namespace seer::kernels {

// Rows of D features follow one another. Weights and their gradients have `stride` floats a row.
struct BackwardBlock {
  int num_queries, num_keys, head_dim, stride;
  float scale;
  // Query i sees keys 0 to limit + slope * i of the block.
  int64_t limit;
  int slope;
  const float *q, *grad_o;      // [queries, D]
  const float *lse, *delta;     // [queries]  log-sum-exp in units of log2; +inf: sees no key
  const float* k;               // [keys, D]
  const float *k_t, *v_t;       // [D, stride]  transposed
  float *weights, *grad_score;  // [queries, stride]  P and dS, without scale
  float* grad_q;                // [queries, D]  added to
  float *grad_k, *grad_v;       // [keys, D]     added to
};

struct BackwardProducts {
  // weights, grad_score and grad_q
  void (*rows)(const BackwardBlock& b);
  // grad_k and grad_v, from weights and grad_score
  void (*columns)(const BackwardBlock& b);
};

// Those of the best instruction set that the CPU has.
const BackwardProducts& backward_products();

}  // namespace seer::kernels
