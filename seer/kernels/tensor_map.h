#pragma once
// Tensor maps: how the copy engine of sm_90 finds the tiles of a packed [tokens, heads, D] tensor.
// For .cu files.

#include <cuda.h>

#include "seer/base/dtype.h"
#include "seer/kernels/strided.h"

namespace seer::kernels {

// Boxes of `rows` tokens (at most 256) and 128 bytes of one head (64 columns, of f32 32), in the
// 128-byte swizzle; zeros outside of the tensor. Addresses and strides are multiples of 16 bytes
// (alignment.h). Error: the driver is too old, or refuses the strides.
CUtensorMap tensor_map(const StridedIn& x, int64_t tokens, int heads, int head_dim, DType dtype,
                       int rows = 64);

// Those of an attention.
struct Maps {
  CUtensorMap q, k, v;
};
template <class Params>
Maps tensor_maps(const Params& p) {
  // Without a key no tile of them is loaded: the maps only have to be valid.
  const int64_t keys = p.total_k ? p.total_k : 1;
  return {tensor_map(p.q, p.total_q, p.num_q_heads, p.head_dim, p.dtype),
          tensor_map(p.total_k ? p.k : p.q, keys, p.num_kv_heads, p.head_dim, p.dtype),
          tensor_map(p.total_k ? p.v : p.q, keys, p.num_kv_heads, p.head_dim, p.dtype)};
}

}  // namespace seer::kernels
