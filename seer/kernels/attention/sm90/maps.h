#pragma once
// Tensor maps of an attention's inputs. For .cu files.

#include "seer/kernels/attention/params.h"
#include "seer/kernels/tensor_map.h"

namespace seer::kernels::attention {

struct Maps {
  CUtensorMap q, k, v;
};

inline Maps tensor_maps(const PackedAttentionParams& p) {
  // Without a key no tile of them is loaded: the maps only have to be valid.
  const int64_t keys = p.total_k ? p.total_k : 1;
  return {tensor_map(p.q, p.total_q, p.num_q_heads, p.head_dim, p.dtype),
          tensor_map(p.total_k ? p.k : p.q, keys, p.num_kv_heads, p.head_dim, p.dtype),
          tensor_map(p.total_k ? p.v : p.q, keys, p.num_kv_heads, p.head_dim, p.dtype)};
}

}  // namespace seer::kernels::attention
