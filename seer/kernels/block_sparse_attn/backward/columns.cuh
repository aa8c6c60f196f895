#pragma once
// Columns of the block lists: which keys they are, and which rows list them.

#include "seer/kernels/block_sparse_attn/backward/workspace.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels::backward {

// A part has at most this many steps; a column with no more is not split.
__device__ __forceinline__ int most_steps(const BlockSparseAttnBackwardParams& p,
                                          const Workspace& w) {
  const unsigned long long tiles = static_cast<unsigned long long>(
      p.lists.block_k / kTile * (p.num_q_heads / p.lists.num_heads));
  return max(32, static_cast<int>(w.counters->total_steps * tiles / w.shares) + 1);
}

// 64 keys of one kv head.
struct ColumnTile {
  int kv_head, num_heads;  // num_heads: query heads of the group
  int k_token;             // of the packed tokens: its first key
  int k_first, k_left;     // in the sequence; keys from there to the sequence's end
  int q_token, q_len, offset;
  int first_row, last_row;  // row tiles of the sequence, among those of all
  int64_t column;           // of the lists

  // Which row tiles list the column, for head h of the group.
  __device__ __forceinline__ const uint32_t* bits(const BlockSparseAttnBackwardParams& p,
                                                  const Workspace& w, int h) const {
    const int list_head = p.lists.num_heads == p.num_q_heads ? kv_head * num_heads + h : kv_head;
    return w.bits + (list_head * w.columns + column) * w.words;
  }
  // Row tiles of word i that are the sequence's.
  __device__ __forceinline__ uint32_t rows_of_word(int i) const {
    uint32_t mask = 0xffffffff;
    if (i * 32 < first_row) mask &= 0xffffffff << (first_row - i * 32);
    if (i * 32 + 32 > last_row) mask &= 0xffffffff >> (i * 32 + 32 - last_row);
    return mask;
  }
};

// index: kv_head * column_tiles + column tile. No keys (k_left <= 0): the number is nobody's.
__device__ __forceinline__ ColumnTile describe_column(const BlockSparseAttnBackwardParams& p,
                                                      const Workspace& w, int64_t index) {
  ColumnTile t;
  const TileSlot slot =
      tile_slot(p.cu_k, p.num_seqs, kTile, static_cast<int>(index % w.column_tiles));
  const int b = slot.sequence, k_begin = p.cu_k[b];
  t.kv_head = static_cast<int>(index / w.column_tiles);
  t.num_heads = p.group();
  t.k_first = static_cast<int>(slot.begin);
  t.k_token = k_begin + t.k_first;
  t.k_left = p.cu_k[b + 1] - t.k_token;
  t.column = k_begin / p.lists.block_k + b + t.k_first / p.lists.block_k;
  t.q_token = p.cu_q[b];
  t.q_len = p.cu_q[b + 1] - t.q_token;
  t.offset = p.causal ? p.cu_k[b + 1] - k_begin - t.q_len : QueryTile::kNoLimit;
  t.first_row = p.lists.cu_rows[b] * (p.lists.block_q / kTile);
  t.last_row = p.lists.cu_rows[b + 1] * (p.lists.block_q / kTile);
  return t;
}

}  // namespace seer::kernels::backward
