#pragma once
// What a rule asks of one row, and how large a row's list can become: shared by the size of the
// list and the kernels that fill it. What is constexpr is called on GPUs, too.

#include <algorithm>
#include <cstdint>

#include "seer/kernels/block_select/params.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels {

inline BestOfRow best_of_row(const BlockSelectParams& p, int head) {
  return best_of_row(p.rule, p.strength[head], p.block);
}

// Entries that a row of any sequence can need, if it is not one of the last dense ones. The
// diagonal is at most two blocks.
inline int64_t row_bound(const BlockSelectParams& p, int head) {
  if (!select_rule(p.rule).best_of_row) return p.num_blocks;
  const int64_t n = p.prompt_blocks > 0 ? p.prompt_blocks : p.num_blocks;
  const int64_t forced = int64_t{2} + p.forced.sink_blocks + p.forced.local_blocks;
  return std::min(p.num_blocks, best_of_row(p, head).of(n) + forced);
}

// Entries that a head's lists can need, if rows that are not dense need at most `bound`.
constexpr int64_t head_capacity(const BlockSelectParams& p, int64_t bound) {
  // Where a chunk starts off the grid of blocks, its last two rows can end in the same block.
  const int64_t dense = p.forced.last_dense_rows > 0 ? int64_t{p.forced.last_dense_rows} + 1 : 0;
  const int64_t dense_rows = std::min(p.num_rows, p.num_seqs * dense);
  return (p.num_rows - dense_rows) * bound + dense_rows * p.num_blocks;
}

// One row: which of its blocks are forced, and whether it sees everything.
struct SelectRow {
  RowBlocks blocks;
  bool dense;
  int64_t num_key_blocks;  // of the complete sequence

  constexpr bool forced(const BlockSelectParams& p, int64_t n) const {
    return dense || n < p.forced.sink_blocks || n >= blocks.diagonal - p.forced.local_blocks;
  }
};

// Entries of a row's place; `bound` is row_bound() of its head.
constexpr int64_t place_size(const SelectRow& row, int64_t bound) {
  return row.dense ? row.blocks.end : std::min(row.blocks.end, bound);
}

constexpr SelectRow select_row(const BlockSelectParams& p, int seq, int64_t row) {
  const int len_q = p.cu_q[seq + 1] - p.cu_q[seq], len_k = p.cu_k[seq + 1] - p.cu_k[seq];
  const int64_t num_blocks = blocks_in(int64_t{len_k} + p.block - 1, p.block);
  SelectRow out{row_blocks(len_q, len_k, p.block, row), false, num_blocks};
  if (p.prompt_blocks > 0) {
    out.num_key_blocks = p.prompt_blocks;
    out.dense = out.blocks.end > p.prompt_blocks - p.forced.last_dense_rows;
  } else {
    const int num_rows = p.cu_rows[seq + 1] - p.cu_rows[seq];
    out.dense = static_cast<int>(row) >= num_rows - p.forced.last_dense_rows;
  }
  return out;
}

}  // namespace seer::kernels
