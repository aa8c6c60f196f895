#pragma once
// Block-sparse attention, prefill: the contract. Plain data, no torch and no CUDA in this header.

#include "seer/kernels/attention/params.h"
#include "seer/kernels/block_list.h"

namespace seer::kernels {

// Attention over the listed key blocks only (SeerAttention, arXiv 2410.13276, section 3.3): query i of
// a sequence sees key j if j's block is listed in i's row and, when causal, j <= i + len_k - len_q.
// Keys of blocks that no row lists are never read.
struct BlockSparseAttnParams : PackedAttentionParams {
  BlockList lists;

  // Scratch on a GPU; without it every call is right, some are slower.
  int32_t* counter;  // [1] zero before a call and after it; calls that may overlap need one each.
                     // null: work is dealt out round-robin
  float* partials;   // [block_sparse_attn_partials()] where num_parts > 1
  int num_parts;     // a list is worked on in so many pieces: block_sparse_attn_parts(); 0 is 1
};

}  // namespace seer::kernels
