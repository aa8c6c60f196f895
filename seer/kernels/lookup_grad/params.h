#pragma once
// The gradient of lookup heads' scores: the contract.

#include "seer/kernels/attention/params.h"

namespace seer::kernels {

// A lookup head's score of a row and a key block is that of one pair of tokens (pooled_attn/params.h, block_softmax):
//
//   t[h, I, J] = max over i in row I, j in key block J of (scale * q_i . k_j - lse_i)
//
// With lse constant the gradient touches this pair alone:
//
//   dq_i += d[h, I, J] * scale * k_j      dk_j += d[h, I, J] * scale * q_i
//
// where (i, j) is the pair of the maximum, the first of equal ones. Each head has keys of its own (Hq = Hk = L). Scores that are
// NaN are no maximum; blocks of which a row sees nothing have no pair, and their d is not read.
struct LookupGradParams : PackedAttentionParams {  // no v, no o; lse is read
  const float* dscores;                            // [L, R, N]
  float* dq;               // [T, L, r], contiguous; every element is written
  float* dk;               // [S, L, r]
  const int32_t* cu_rows;  // [B + 1]    prefix sums of ceil(len_q / block)
  int32_t* pairs;          // [L, R, N]  scratch: i * block + j within row and block, -1: none

  int64_t num_rows;    // R
  int64_t num_blocks;  // N  key blocks of the longest sequence
  int block;           // tokens of a row and of a key block
};

}  // namespace seer::kernels
