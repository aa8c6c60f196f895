#pragma once
// Attention of the newest tokens to a long cache of keys and values, a decode step: the contract.

#include <cstdint>

#include "seer/base/dtype.h"
#include "seer/kernels/strided.h"

namespace seer::kernels {

// o = softmax(scale * q k^T) v of the last M tokens of each of B sequences (FlashDecoding).
//
//   T, S    query tokens (B * M) and key tokens of all sequences together
//   Hq, Hk  query and key heads; Hq is a multiple of Hk; query head h reads key head h * Hk / Hq
//   D       head size
//
// Query i of a sequence sees key j if j <= i + len_k - M and, with a window, j > i + len_k - M -
// window. All query heads of a key head are computed together: keys and values are read once.
//
// Work is cut into pieces of `split` keys of one sequence and key head. Where a sequence's pieces
// lie follows from cu_k on the device (pieces.h): the host knows an upper limit of their number.
struct DecodeAttnParams {
  StridedIn q;          // [T, Hq, D]  M tokens of each sequence, one sequence after another
  StridedIn k;          // [S, Hk, D]
  StridedIn v;          // [S, Hk, D]
  StridedOut o;         // [T, Hq, D]  0 where no key was seen
  float* lse;           // [Hq, T]     natural log; -inf where no key was seen
  const int32_t* cu_k;  // [B + 1]     where each sequence's keys start; null: one sequence of S

  int num_seqs;      // B
  int num_queries;   // M
  int num_q_heads;   // Hq
  int num_kv_heads;  // Hk
  int head_dim;      // D
  int64_t total_k;   // S
  int window;        // keys that a query sees back, its own included; 0: all
  float scale;
  DType dtype;  // of q, k, v and o

  // Scratch on a GPU: keys in a piece, decode_attn_split(); results of pieces,
  // decode_attn_partials() floats.
  int split;
  float* partials;
};

}  // namespace seer::kernels
