#pragma once
// What the forward and the backward ask of their lists.

#include "seer/kernels/attention/checks.h"
#include "seer/kernels/block_list.h"

namespace seer::kernels {

// Error: heads that fit neither queries nor keys; sizes that are not possible.
inline void check_lists(const char* op, const PackedAttentionParams& p, const BlockList& lists) {
  check_most(op, "rows", lists.num_rows, kMostTokens);
  SEER_CHECK(lists.num_heads == p.num_q_heads || lists.num_heads == p.num_kv_heads, op, ": ",
             lists.num_heads, " list heads, want ", p.num_q_heads, " (one per query head) or ",
             p.num_kv_heads, " (one per key head)");
  SEER_CHECK(lists.num_rows >= 0 && lists.block_q > 0 && lists.block_k > 0, op, ": ",
             lists.num_rows, " rows, block_q ", lists.block_q, ", block_k ", lists.block_k,
             ", want rows not below 0 and blocks above");
}

// Error: the list of a row of a sequence names a block that does not exist, or does not ascend.
inline void check_list(const char* op, const int32_t* list, int count, int64_t num_blocks,
                       int64_t row, int seq) {
  for (int n = 0; n < count; ++n) {
    SEER_CHECK(list[n] >= 0 && list[n] < num_blocks && (n == 0 || list[n - 1] < list[n]), op,
               ": row ", row, " of sequence ", seq, " lists key block ", list[n],
               n ? message(" after ", list[n - 1]) : "", "; want ascending blocks below ",
               num_blocks);
  }
}

}  // namespace seer::kernels
