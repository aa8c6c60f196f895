#pragma once
// AttnGate, the learned scorer of blocks: the contracts of its three steps and their gradients.
//
//   pool:    q, k before RoPE  ->  one feature vector per block and head
//   project: features          ->  gate vectors (a weight per head, then RoPE at the block's position);
//                                  without a weight pool does it on its way
//   score:   gate vectors      ->  scores of key blocks for every query block
//
// arXiv 2410.13276, section 3.1. The gate's inputs are detached from the base model, so pooling has
// no backward. All gate arithmetic is f32; on a GPU a product of a factor that is infinite,
// or rounds to it at 11 bits, may be NaN.

#include <cstdint>

#include "seer/base/dtype.h"
#include "seer/kernels/strided.h"

namespace seer::kernels {

// Which poolings are concatenated on the feature axis, always in the order max, min, avg.
enum PoolBits : int { kPoolMax = 1, kPoolMin = 2, kPoolAvg = 4 };

// pooled[r, h, :] = (max | min | avg over the tokens of block r, head h), the last, partial block
// over its valid tokens only. A NaN among the tokens makes all three NaN. With cos, which one pooling
// alone can have, the gate vectors of a gate without a weight: rope(pooled[r, h, :]).
struct GatePoolParams {
  StridedIn x;               // [T, H, D]
  const int32_t* cu;         // [B + 1]       where each sequence starts in x
  const int32_t* cu_blocks;  // [B + 1]       prefix sums of ceil(len / block)
  float* pooled;             // [R, H, P * D] R blocks of all sequences, P poolings
  int num_seqs, num_heads, head_dim, block;
  int64_t num_blocks;  // R
  int pools;           // PoolBits
  DType dtype;         // of x
  const float* cos;    // [R, rope_half] as of GateProjectParams; null: no RoPE
  const float* sin;    // [R, rope_half]
  int rope_half;
  // On GPUs: may run beside the kernels ahead in the stream back to the last that was launched to
  // wait for all before it. What this one reads was complete before that, and `pooled` its own.
  bool beside_previous;
};

// y[r, h, :] = rope(x[r, h * Hin / Hout, :] W[h]), rotate-half on the first 2 * rope_half features.
struct GateProjectParams {
  const float* x;       // [R, Hin, F]
  const float* weight;  // [Hout, F, d]   null: y = rope(x), Hout = Hin, F = d
  const float* cos;     // [R, rope_half] attention factor included; null: no RoPE
  const float* sin;     // [R, rope_half]
  float* y;             // [R, Hout, d]
  int64_t num_blocks;   // R
  int num_in_heads, num_out_heads, in_dim, out_dim, rope_half;
};

// The step that rotates what pool has written, in its place.
constexpr GateProjectParams rotate_in_place(const GatePoolParams& p) {
  return {.x = p.pooled,
          .weight = nullptr,
          .cos = p.cos,
          .sin = p.sin,
          .y = p.pooled,
          .num_blocks = p.num_blocks,
          .num_in_heads = p.num_heads,
          .num_out_heads = p.num_heads,
          .in_dim = p.head_dim,
          .out_dim = p.head_dim,
          .rope_half = p.rope_half};
}

// dweight[h] += sum over r of x[r, h * Hin / Hout, :]^T unrope(dy[r, h, :]).
struct GateProjectGradParams {
  const float* x;    // [R, Hin, F]
  const float* cos;  // [R, rope_half]
  const float* sin;  // [R, rope_half]
  const float* dy;   // [R, Hout, d]
  float* dweight;    // [Hout, F, d]
  int64_t num_blocks;
  int num_in_heads, num_out_heads, in_dim, out_dim, rope_half;
};

// scores[h, r, n] = scale * q_gate[r, h, :] . k_gate[n, h * Hg / Hq, :], -inf where no key of block
// n is visible to any query of row r (causal with offset len_k - len_q) or n is not a block of r's
// sequence.
struct GateScoreParams {
  const float* q_gate;       // [R, Hq, d]
  const float* k_gate;       // [K, Hg, d]  key blocks of all sequences together
  const int32_t* cu_q;       // [B + 1]     tokens
  const int32_t* cu_k;       // [B + 1]     tokens
  const int32_t* cu_rows;    // [B + 1]     query blocks
  const int32_t* cu_blocks;  // [B + 1]     key blocks: prefix sums of ceil(len_k / block)
  float* scores;             // [Hq, R, N]  N: key blocks of the longest sequence
  int num_seqs, num_q_heads, num_gate_heads, gate_dim;
  int64_t num_rows, num_blocks;  // R, N
  int64_t total_blocks;          // K
  int block;
  float scale;  // 1 / sqrt(d)
};

// dq_gate[r, h] = scale * sum over n of dscores[h, r, n] k_gate[n, ...]; dk_gate likewise, summed
// over the query heads that share a gate head. Masked scores give nothing, whatever dscores holds
// there.
struct GateScoreGradParams {
  GateScoreParams forward;  // `scores` is not read
  const float* dscores;     // [Hq, R, N]
  float* dq_gate;           // [R, Hq, d]    null: not wanted
  float* dk_gate;           // [K, Hg, d]
};

}  // namespace seer::kernels
