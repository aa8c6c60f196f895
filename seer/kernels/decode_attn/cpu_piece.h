#pragma once
// The arithmetic of a decode step on the CPU: rows of queries against one piece of keys, one
// function per step; the table is filled once per instruction set.
//
//   R  rows: the queries of one sequence, of all heads that share the key head
//   W  head size, padded to whole pairs of vectors
//
// Keys and values are read where they lie: both products go along the features, so nothing is
// packed. Features of 16-bit elements are kept in the order that splitting pairs gives.

#include <cstdint>

#include "seer/base/dtype.h"

namespace seer::kernels {

inline constexpr int kDecodeBlock = 32;  // keys that share a step of the softmax

struct DecodePiece {
  const void *k, *v;           // the first key and value of the piece
  int64_t k_stride, v_stride;  // elements between tokens
  int num_keys;
  int rows;                    // R
  const float* q;              // [R, W]  pack_query()
  const int32_t *begin, *end;  // [R]     the keys of the piece that a row sees
  float* s;                    // [R, kDecodeBlock]  scratch
  float* wide;                 // [kDecodeBlock, W]  scratch
  // Results: largest score in base 2, sum of 2^(s - m), and the values so weighted.
  float *m, *l;  // [R]
  float* acc;    // [R, W]
};

struct DecodeKernels {
  const char* name;
  int (*padded)(int head_dim);  // W
  // One row of D features, times `factor`.
  void (*pack_query)(DType dtype, int head_dim, const void* q, float factor, float* packed);
  void (*attend)(DType dtype, int head_dim, const DecodePiece& piece);
  // A row of `acc` as D features in their own order.
  void (*unpack)(DType dtype, int head_dim, const float* acc, float* o);
};

}  // namespace seer::kernels
