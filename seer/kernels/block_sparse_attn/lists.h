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

}  // namespace seer::kernels
