#pragma once
// A tile of queries with its map row: what a thread block works on.

#include "seer/kernels/pooled_attn/tile_order.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels {

struct PooledTile : QueryTile {
  int map_row;    // of the first query
  int num_steps;  // key tiles that any query sees

  // The tile at place `at` of the order, for tiles of kQueries queries and kKeys keys.
  template <int kQueries, int kKeys>
  __device__ static PooledTile find(const PooledAttnParams& p, const TileOrder& order, int64_t at) {
    const int64_t group = at / (order.places * order.heads_together);
    at -= group * order.places * order.heads_together;
    const int first_head = static_cast<int>(group) * order.heads_together;
    const int num_heads = min(order.heads_together, order.heads - first_head);
    const int head = first_head + static_cast<int>(at % num_heads);
    const int64_t place = order.places - 1 - at / num_heads;

    const auto begin = [&](int b) { return (p.cu_q[b] + int64_t{kQueries - 1} * b) / kQueries; };
    const int seq = last_begun(p.num_seqs, place, begin);
    const int first = static_cast<int>(place - begin(seq)) * kQueries;
    PooledTile t{QueryTile::of(p, head, seq, first, kQueries)};
    if (t.num_queries <= 0) return t;
    t.map_row = p.cu_rows[seq] + first / p.block_q;
    // Never more than the map holds, whatever the prefix sums say.
    const int64_t most = (p.num_blocks * p.block_k + kKeys - 1) / kKeys;
    const int last = t.last_key();
    t.num_steps = last < 0 ? 0 : static_cast<int>(min(int64_t{last / kKeys + 1}, most));
    return t;
  }
};

}  // namespace seer::kernels
