#pragma once
// Calls of pooled_attn for tests: shapes and the inputs they mean.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <ostream>
#include <vector>

#include "seer/base/random.h"
#include "seer/kernels/attention/testing/attention_call.h"
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
  bool map_alone = false;            // neither values nor o
  bool block_softmax = false;        // of the map alone
  int padding = 0;                   // elements between rows
  int nan_query = -1, nan_key = -1;  // tokens whose last head is NaN
  friend void PrintTo(const PooledAttnCase& c, std::ostream* out) { *out << c.name; }
};

struct PooledAttnCall : AttentionCall {
  std::vector<int32_t> cu_rows;
  int64_t num_blocks = 0;
  PooledAttnCase shape;

  PooledAttnCall(const PooledAttnCase& c, DType dtype, uint64_t seed = 1)
      : AttentionCall(c.q_lens, c.k_lens, c.heads_q, c.heads_kv, c.head_dim, c.padding, dtype),
        cu_rows(prefix_sums(c.q_lens, c.block_q)),
        shape(c) {
    for (const int n : c.k_lens) {
      num_blocks = std::max<int64_t>(num_blocks, (n + c.block_k - 1) / c.block_k);
    }
    map.assign(static_cast<size_t>(map_heads() * cu_rows.back() * num_blocks), NAN);
    Random random(seed);
    fill_normal(random);
    for (int d = 0; d < c.head_dim; ++d) {
      if (c.nan_query >= 0) q.set(c.nan_query, c.heads_q - 1, d, NAN);
      if (c.nan_key >= 0) k.set(c.nan_key, c.heads_kv - 1, d, NAN);
    }
  }

  int map_heads() const { return shape.group_max ? shape.heads_kv : shape.heads_q; }

  PooledAttnParams params() {
    PooledAttnParams p{packed(shape.causal)};
    if (shape.map_alone) p.v = {}, p.o = {};
    p.map = map.data();
    p.cu_rows = cu_rows.data();
    p.num_map_heads = map_heads();
    p.num_rows = cu_rows.back();
    p.num_blocks = num_blocks;
    p.block_q = shape.block_q;
    p.block_k = shape.block_k;
    p.normalise = shape.normalise;
    p.block_softmax = shape.block_softmax;
    return p;
  }
};

}  // namespace seer::kernels
