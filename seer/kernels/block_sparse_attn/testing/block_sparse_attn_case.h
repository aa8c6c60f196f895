#pragma once
// Calls of block_sparse_attn for tests: shapes, lists and the inputs they mean.

#include <algorithm>
#include <cstdint>
#include <ostream>
#include <utility>
#include <vector>

#include "seer/base/random.h"
#include "seer/kernels/attention/testing/attention_call.h"
#include "seer/kernels/block_sparse_attn/drawn_lists.h"
#include "seer/kernels/block_sparse_attn/params.h"

namespace seer::kernels {

struct BlockSparseAttnCase {
  const char* name;
  std::vector<int> q_lens, k_lens;
  int heads_q = 2, heads_kv = 1, head_dim = 64;
  int block_q = 64, block_k = 64;
  double density = 0.5;  // share of the visible blocks that random lists keep
  bool keep_diagonal = true;
  bool lists_per_kv_head = false;
  bool causal = true;
  int padding = 0;  // elements between rows

  int list_heads() const { return lists_per_kv_head ? heads_kv : heads_q; }
  friend void PrintTo(const BlockSparseAttnCase& c, std::ostream* out) { *out << c.name; }
};

struct BlockSparseAttnCall : AttentionCall {
  std::vector<int32_t> cu_rows, count, list;
  std::vector<int64_t> begin;
  BlockSparseAttnCase shape;

  BlockSparseAttnCall(const BlockSparseAttnCase& c, DType dtype, uint64_t seed = 1)
      : AttentionCall(c.q_lens, c.k_lens, c.heads_q, c.heads_kv, c.head_dim, c.padding, dtype),
        cu_rows(prefix_sums(c.q_lens, c.block_q)),
        shape(c) {
    Random random(seed);
    fill_normal(random);
    make_lists(seed);
  }

  // A row's diagonal is its own last block.
  void make_lists(uint64_t seed) {
    std::vector<int> visible;
    for (size_t b = 0; b < shape.q_lens.size(); ++b) {
      const int len_q = shape.q_lens[b], len_k = shape.k_lens[b];
      for (int row = 0; row * shape.block_q < len_q; ++row) {
        const int row_end = std::min(len_q, (row + 1) * shape.block_q);
        const int keys = shape.causal ? row_end + len_k - len_q : len_k;
        visible.push_back((std::max(keys, 0) + shape.block_k - 1) / shape.block_k);
      }
    }
    DrawnLists drawn =
        draw_lists("random", shape.density, shape.list_heads(), visible, seed, shape.keep_diagonal);
    begin = std::move(drawn.begin), count = std::move(drawn.count), list = std::move(drawn.list);
  }

  BlockSparseAttnParams params() {
    BlockSparseAttnParams p{packed(shape.causal)};
    p.lists = {.begin = begin.data(),
               .count = count.data(),
               .list = list.data(),
               .cu_rows = cu_rows.data(),
               .num_heads = shape.list_heads(),
               .num_rows = cu_rows.back(),
               .block_q = shape.block_q,
               .block_k = shape.block_k};
    return p;
  }
};

}  // namespace seer::kernels
