#pragma once
// Calls of pooled_attn for tests: shapes and the inputs they mean.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <ostream>
#include <vector>

#include "seer/base/random.h"
#include "seer/kernels/attention_inputs.h"
#include "seer/kernels/pooled_attn/params.h"

namespace seer::kernels {

struct PooledAttnCase {
  const char* name;
  std::vector<int> q_lens, k_lens;
  int heads_q = 2, heads_kv = 1, head_dim = 64;
  int block_q = 64, block_k = 64;
  bool group_max = false;
  bool normalise = false;
  bool causal = true;
  int padding = 0;                   // elements between rows
  int nan_query = -1, nan_key = -1;  // tokens whose last head is NaN
  friend void PrintTo(const PooledAttnCase& c, std::ostream* out) { *out << c.name; }
};

// Owns what a call reads and writes.
struct PooledAttnCall {
  AttentionTensor q, k, v, o;
  std::vector<int32_t> cu_q, cu_k, cu_rows;
  int64_t num_blocks = 0;
  std::vector<float> lse, map;
  PooledAttnCase shape;

  PooledAttnCall(const PooledAttnCase& c, DType dtype, uint64_t seed = 1)
      : q(dtype, prefix_sums(c.q_lens).back(), c.heads_q, c.head_dim, c.padding),
        k(dtype, prefix_sums(c.k_lens).back(), c.heads_kv, c.head_dim, c.padding),
        v(dtype, k.tokens, c.heads_kv, c.head_dim, c.padding),
        o(dtype, q.tokens, c.heads_q, c.head_dim, c.padding),
        cu_q(prefix_sums(c.q_lens)),
        cu_k(prefix_sums(c.k_lens)),
        cu_rows(prefix_sums(c.q_lens, c.block_q)),
        lse(static_cast<size_t>(q.tokens * c.heads_q)),
        shape(c) {
    for (const int n : c.k_lens) {
      num_blocks = std::max<int64_t>(num_blocks, (n + c.block_k - 1) / c.block_k);
    }
    map.assign(static_cast<size_t>(map_heads() * cu_rows.back() * num_blocks), NAN);
    Random random(seed);
    q.fill_normal(random);
    k.fill_normal(random);
    v.fill_normal(random);
    for (int d = 0; d < c.head_dim; ++d) {
      if (c.nan_query >= 0) q.set(c.nan_query, c.heads_q - 1, d, NAN);
      if (c.nan_key >= 0) k.set(c.nan_key, c.heads_kv - 1, d, NAN);
    }
  }

  int map_heads() const { return shape.group_max ? shape.heads_kv : shape.heads_q; }

  PooledAttnParams params() {
    return {.q = q.in(),
            .k = k.in(),
            .v = v.in(),
            .o = o.out(),
            .lse = lse.data(),
            .map = map.data(),
            .cu_q = cu_q.data(),
            .cu_k = cu_k.data(),
            .cu_rows = cu_rows.data(),
            .num_seqs = static_cast<int>(shape.q_lens.size()),
            .num_q_heads = shape.heads_q,
            .num_kv_heads = shape.heads_kv,
            .num_map_heads = map_heads(),
            .head_dim = shape.head_dim,
            .total_q = q.tokens,
            .total_k = k.tokens,
            .num_rows = cu_rows.back(),
            .num_blocks = num_blocks,
            .block_q = shape.block_q,
            .block_k = shape.block_k,
            .scale = 1.f / std::sqrt(static_cast<float>(shape.head_dim)),
            .causal = shape.causal,
            .normalise = shape.normalise,
            .dtype = q.dtype};
  }
};

}  // namespace seer::kernels
