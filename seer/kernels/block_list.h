#pragma once
// Block lists: what block_select writes and block_sparse_attn reads.

#include <cstdint>

namespace seer::kernels {

// For each list head and each row (a block of queries), the key blocks that the row attends to.
//
//   L  heads that have lists of their own: Hq, or Hk where the query heads of a group share one
//   R  rows: query blocks of all sequences together; sequence b has rows cu_rows[b] .. cu_rows[b+1]
//
// Query blocks are counted from the start of the sequence's queries, key blocks from the start of
// its keys. A row of no blocks is allowed (o = 0, lse = -inf).
struct BlockList {
  const int64_t* begin;    // [L, R]  where the row's list starts in `list`
  const int32_t* count;    // [L, R]  how many key blocks it names
  const int32_t* list;     // key block indices within the sequence, ascending in a row
  const int32_t* cu_rows;  // [B + 1] prefix sums of ceil(len_q / block_q)
  int num_heads;           // L
  int64_t num_rows;        // R
  int block_q;             // queries in a row
  int block_k;             // keys in a key block
};

}  // namespace seer::kernels
