#pragma once
// Tensor maps of an attention's inputs. For .cu files.

#include "seer/kernels/attention/params.h"
#include "seer/kernels/tensor_map.h"

namespace seer::kernels::attention {

struct Maps {
  CUtensorMap q, k, v;
};

// With rows of `row_bytes` (tensor_map.h).
inline Maps tensor_maps(const PackedAttentionParams& p, int row_bytes = 128) {
  const auto map = [&](const StridedIn& x, int64_t tokens, int heads) {
    return tensor_map(x, tokens, heads, p.head_dim, p.dtype, 64, row_bytes);
  };
  // Without a key no tile of them is loaded: the maps only have to be valid.
  const int64_t keys = p.total_k ? p.total_k : 1;
  return {map(p.q, p.total_q, p.num_q_heads), map(p.total_k ? p.k : p.q, keys, p.num_kv_heads),
          map(p.total_k ? p.v : p.q, keys, p.num_kv_heads)};
}

}  // namespace seer::kernels::attention
