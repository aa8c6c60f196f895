#pragma once
// From scores to block lists: the contract.

#include <cstdint>

#include "seer/kernels/block_select/rules.h"

namespace seer::kernels {

// What is added to the rule's choice, whatever the scores: the diagonal (every key block that holds
// a position of the row's own queries) always; besides it
struct SelectForced {
  int sink_blocks;      // the first key blocks of the sequence
  int local_blocks;     // the last key blocks before the diagonal
  int last_dense_rows;  // the last rows of the sequence see everything (published: 2 or 0)
};

// What a list holds between its rows' blocks. Two selections of equal blocks are thus equal as tensors,
// on a CPU and on a GPU.
inline constexpr int32_t kNoBlock = -1;

// Ties go to the lower row, then to the lower index. A -inf score is a masked block and is never
// chosen. nz_ratio and row_budget count forced blocks within k where they are among the best, as
// the published rule does; forced blocks beyond that come on top.
//
// Visible scores that hold NaN (or +inf, where the rule needs a softmax) are an error on the CPU. On a
// GPU, where nothing waits for the scores, such a row (of head_budget: every row of that head and
// sequence) gets begin = -1 and count = 0, so that attention gives o = 0 for it: look for begin < 0
// where the counts are read.
struct BlockSelectParams {
  const float* scores;     // [L, R, N]
  const int32_t* cu_q;     // [B + 1] tokens
  const int32_t* cu_k;     // [B + 1] tokens
  const int32_t* cu_rows;  // [B + 1] rows
  const double* strength;  // [L] one per head; on the host, whatever the device
  int64_t* begin;          // [L, R]  out
  int32_t* count;          // [L, R]  out
  int32_t* list;           // [capacity] out; each row has a place of its own, gaps are kNoBlock
  int64_t capacity;        // entries in `list`: at least block_select_capacity()
  int num_seqs, num_heads;
  int64_t num_rows, num_blocks;  // R, N
  int block;
  // While a prompt comes in chunks: the key blocks of the complete prompt, of each sequence of the call,
  // and not fewer than num_blocks. It is n of nz_ratio, and the last dense rows are those that see one of
  // the prompt's last blocks. 0: every sequence is complete.
  //
  // Rows are counted from a chunk's first query, key blocks from the sequence's first key. Chunks that
  // start at a multiple of the block choose what the whole prompt does (but for head_budget, whose rows
  // are the call's). A chunk off that grid has rows that hold positions of two key blocks: both are
  // their diagonal, always kept, and the last two rows may end in one block, so that one row more
  // than last_dense_rows can be dense.
  int64_t prompt_blocks;
  SelectRule rule;
  SelectForced forced;

  // On a GPU: as much memory as block_select_workspace() says, at a multiple of 16.
  void* workspace = nullptr;
  int64_t workspace_bytes = 0;
};

}  // namespace seer::kernels
