#pragma once
// How GPU kernels for dense attention cut a call into tiles of queries, and in which order they take
// them.

#include <algorithm>
#include <cstdint>

#include "seer/kernels/attention/params.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels {

// Sequence b has the places (cu_q[b] + (n - 1) b) / n and on of each head, for tiles of n queries:
// enough for its tiles, and found without knowing the lengths. Places that no tile takes are empty.
//
// Heads come in groups whose keys and values fit an L2 cache together, in a group the last queries
// of all heads first: they see the most keys, and what is short fills the gaps at the end.
struct TileOrder {
  int64_t places;  // of a head
  int heads, heads_together;
  int64_t most_keys;  // no tile takes more, whatever the prefix sums say
};

inline TileOrder tile_order(const PackedAttentionParams& p, int tile_queries, int64_t most_keys) {
  constexpr int64_t kCacheBytes = int64_t{32} << 20;  // of 40 (A100) or 50 MB (H100)
  const int64_t places = (p.total_q + int64_t{tile_queries - 1} * p.num_seqs) / tile_queries;
  const int64_t bytes = std::max<int64_t>(p.total_k * p.head_dim * 4, 1);
  const int64_t kv_heads = std::clamp<int64_t>(kCacheBytes / bytes, 1, p.num_kv_heads);
  return {places, p.num_q_heads, static_cast<int>(kv_heads * p.group()), most_keys};
}

constexpr int64_t num_places(const TileOrder& order) {
  return order.places * order.heads;
}

struct DenseTile : QueryTile {
  int seq;
  int num_steps;  // key tiles that any query sees

  // The tile at place `at` of the order, for tiles of kQueries queries and kKeys keys.
  template <int kQueries, int kKeys>
  static constexpr DenseTile find(const PackedAttentionParams& p, const TileOrder& order,
                                  int64_t at) {
    const int64_t group = at / (order.places * order.heads_together);
    at -= group * order.places * order.heads_together;
    const int first_head = static_cast<int>(group) * order.heads_together;
    const int num_heads = std::min(order.heads_together, order.heads - first_head);
    const int head = first_head + static_cast<int>(at % num_heads);
    const int64_t place = order.places - 1 - at / num_heads;

    const auto begin = [&](int b) { return (p.cu_q[b] + int64_t{kQueries - 1} * b) / kQueries; };
    const int seq = last_begun(p.num_seqs, place, begin);
    const int first = static_cast<int>(place - begin(seq)) * kQueries;
    DenseTile t{QueryTile::of(p, head, seq, first, kQueries), seq, 0};
    const int64_t most = (order.most_keys + kKeys - 1) / kKeys;
    if (t.last_key() >= 0) {
      t.num_steps = static_cast<int>(std::min(int64_t{t.last_key() / kKeys + 1}, most));
    }
    return t;
  }
};

}  // namespace seer::kernels
