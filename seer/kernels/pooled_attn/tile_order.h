#pragma once
// How GPU kernels cut a call into tiles of queries, and in which order they take them.

#include <algorithm>
#include <cstdint>

#include "seer/kernels/pooled_attn/params.h"

namespace seer::kernels {

// Sequence b has the places (cu_q[b] + (n - 1) b) / n and on of each head, for tiles of n queries:
// enough for its tiles, and found without knowing the lengths. Places that no tile takes are empty.
//
// Heads come in groups whose keys and values fit an L2 cache together, in a group the last queries
// of all heads first: they see the most keys, and what is short fills the gaps at the end.
struct TileOrder {
  int64_t places;  // of a head
  int heads, heads_together;
};

inline TileOrder tile_order(const PooledAttnParams& p, int tile_queries) {
  constexpr int64_t kCacheBytes = int64_t{32} << 20;  // of 40 (A100) or 50 MB (H100)
  const int64_t places = (p.total_q + int64_t{tile_queries - 1} * p.num_seqs) / tile_queries;
  const int64_t bytes = std::max<int64_t>(p.total_k * p.head_dim * 4, 1);
  const int64_t kv_heads = std::clamp<int64_t>(kCacheBytes / bytes, 1, p.num_kv_heads);
  return {places, p.num_q_heads, static_cast<int>(kv_heads * (p.num_q_heads / p.num_kv_heads))};
}

constexpr int64_t num_places(const TileOrder& order) {
  return order.places * order.heads;
}

}  // namespace seer::kernels
