#pragma once
// A tile of queries of one head: what a thread block works on.

#include "seer/kernels/pooled_attn/tile_order.h"

namespace seer::kernels {

// Keys are counted from the start of the sequence.
struct QueryTile {
  int head, kv_head;
  int q_begin, num_queries;  // the first query among all tokens; no queries where not positive
  int k_begin, k_len;
  int limit, slope;  // query i sees keys up to limit + slope * i
  int map_row;       // of the first query
  int num_steps;     // key tiles that any query sees

  // The tile at place `at` of the order, for tiles of kQueries queries and kKeys keys.
  template <int kQueries, int kKeys>
  __device__ static QueryTile find(const PooledAttnParams& p, const TileOrder& order, int64_t at) {
    QueryTile t;
    const int64_t group = at / (order.places * order.heads_together);
    at -= group * order.places * order.heads_together;
    const int first_head = static_cast<int>(group) * order.heads_together;
    const int num_heads = min(order.heads_together, order.heads - first_head);
    t.head = first_head + static_cast<int>(at % num_heads);
    t.kv_head = t.head / (p.num_q_heads / p.num_kv_heads);
    const int64_t place = order.places - 1 - at / num_heads;

    // The last sequence whose places begin at or before this one; one without queries is never it.
    const auto begin = [&](int b) { return (p.cu_q[b] + int64_t{kQueries - 1} * b) / kQueries; };
    int seq = 0, end = p.num_seqs;
    while (end - seq > 1) {
      const int middle = (seq + end) / 2;
      (begin(middle) <= place ? seq : end) = middle;
    }
    const int q0 = p.cu_q[seq], q_len = p.cu_q[seq + 1] - q0;
    const int64_t first = (place - begin(seq)) * kQueries;
    t.num_queries = static_cast<int>(min(q_len - first, int64_t{kQueries}));
    if (t.num_queries <= 0) return t;
    t.q_begin = q0 + static_cast<int>(first);
    t.k_begin = p.cu_k[seq];
    t.k_len = p.cu_k[seq + 1] - t.k_begin;
    t.limit = p.causal ? static_cast<int>(first) + t.k_len - q_len : t.k_len - 1;
    t.slope = p.causal ? 1 : 0;
    t.map_row = p.cu_rows[seq] + static_cast<int>(first) / p.block_q;
    const int last_key = min(t.limit + t.slope * (t.num_queries - 1), t.k_len - 1);
    // Never more than the map holds, whatever the prefix sums say.
    const int64_t most = (p.num_blocks * p.block_k + kKeys - 1) / kKeys;
    t.num_steps = last_key < 0 ? 0 : static_cast<int>(min(int64_t{last_key / kKeys + 1}, most));
    return t;
  }
};

}  // namespace seer::kernels
