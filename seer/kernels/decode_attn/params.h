#pragma once
// Attention of the newest tokens to a long cache of keys and values, a decode step: the contract.

#include "seer/kernels/attention/params.h"

namespace seer::kernels {

// Attention of the last M tokens of each of B sequences (FlashDecoding): T is B * M, cu_q is not read,
// and the call is causal whatever `causal` says. Query i of a sequence sees key j if j <= i + len_k -
// M and, with a window, j > i + len_k - M - window. All query heads of a key head are computed
// together: keys and values are read once.
//
// Work is cut into pieces of `split` keys of one sequence and key head. Where a sequence's pieces
// lie follows from cu_k on the device (pieces.h): the host knows an upper limit of their number.
struct DecodeAttnParams : PackedAttentionParams {
  int num_queries;  // M
  int window;       // keys that a query sees back, its own included; 0: all

  // Scratch on a GPU: keys in a piece, decode_attn_split(); results of pieces,
  // decode_attn_partials() floats.
  int split;
  float* partials;
};

}  // namespace seer::kernels
