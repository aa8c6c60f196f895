#pragma once
// The gradient of lookup heads' scores: the contract.

#include "seer/kernels/attention/params.h"

namespace seer::kernels {

// The score of a row and a key block is that of one query (pooled_attn/params.h, block_softmax):
//
//   m[i, J] = scale * max over j in key block J of q_i . k_j      lse_i = log of the sum over J of exp(m[i, J])
//   t[I, J] = max over i in row I of (m[i, J] - lse_i)
//
// Where query i is the largest of some blocks, their gradients g reach all blocks that it sees, through lse_i:
//
//   w[i, J] = g[I, J] where i is the largest of J, else 0; minus exp(m[i, J] - lse_i) times the sum of i's g
//   dq_i += scale * w[i, J] * k_j      dk_j += scale * w[i, J] * q_i      for the j whose score is m[i, J]
//
// Of equal scores the first one is the largest. Each head has keys of its own (Hq = Hk = L). Scores that are NaN are no maximum;
// the g of blocks of which a row sees nothing are not read.
struct LookupGradParams : PackedAttentionParams {  // no v, no o; lse is read
  const float* dscores;                            // [L, R, N]
  float* dq;               // [T, L, r], contiguous; every element is written
  float* dk;               // [S, L, r]
  const int32_t* cu_rows;  // [B + 1]    prefix sums of ceil(len_q / block)
  int32_t* largest;        // [L, R, N]  scratch: query of the row that is the largest, -1: none
  float* sums;             // [L, T]     scratch: the sum of a query's g

  int64_t num_rows;    // R
  int64_t num_blocks;  // N  key blocks of the longest sequence
  int block;           // tokens of a row and of a key block
};

}  // namespace seer::kernels
