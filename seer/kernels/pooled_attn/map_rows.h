#pragma once
// What happens to the whole map before and after the attention kernel.

#include "seer/kernels/pooled_attn/params.h"

namespace seer::kernels {

// Whether several tiles of queries write into one row of the map.
constexpr bool map_rows_are_shared(const PooledAttnParams& p, int tile_queries) {
  return p.num_map_heads != p.num_q_heads || p.block_q > tile_queries;
}

// Zeros.
void clear_map(const PooledAttnParams& p, void* stream);
// Divides each row by its sum where that is positive.
void normalise_map(const PooledAttnParams& p, void* stream);

}  // namespace seer::kernels
