#pragma once
// Block-sparse attention, prefill: the contract. Plain data, no torch and no CUDA in this header.

#include <cstdint>

#include "seer/base/dtype.h"
#include "seer/kernels/block_list.h"
#include "seer/kernels/strided.h"

namespace seer::kernels {

// o = softmax(scale * q k^T, over the listed key blocks only) v, for packed sequences
// (SeerAttention, arXiv 2410.13276, section 3.3).
//
//   T, S    query and key tokens of all sequences together
//   Hq, Hk  query and key heads; Hq is a multiple of Hk; query head h reads key head h * Hk / Hq
//   D       head size
//
// Query i of a sequence sees key j if j's block is listed in i's row and, when causal,
// j <= i + len_k - len_q: the queries are the last len_q tokens of the sequence (chunked prefill).
// Keys of blocks that no row lists are never read.
struct BlockSparseAttnParams {
  StridedIn q;          // [T, Hq, D]
  StridedIn k;          // [S, Hk, D]
  StridedIn v;          // [S, Hk, D]
  StridedOut o;         // [T, Hq, D]  0 where no key was seen
  float* lse;           // [Hq, T]     natural log; -inf where no key was seen
  const int32_t* cu_q;  // [B + 1]     where each sequence's queries start
  const int32_t* cu_k;  // [B + 1]     where its keys start
  BlockList lists;

  int num_seqs;      // B
  int num_q_heads;   // Hq
  int num_kv_heads;  // Hk
  int head_dim;      // D
  int64_t total_q;   // T
  int64_t total_k;   // S
  float scale;
  bool causal;
  DType dtype;  // of q, k, v and o

  // Scratch on a GPU; without it every call is right, some are slower.
  int32_t* counter;  // [1] zero before a call and after it; calls that may overlap need one each.
                     // null: rows are dealt out in turn, not to whoever is free
  float* partials;   // [block_sparse_attn_partials()] where num_parts > 1
  int num_parts;     // a list is worked on in so many pieces: block_sparse_attn_parts(); 0 is 1
};

}  // namespace seer::kernels
