#pragma once
// The thread that loads: queries, keys and values (where there are any) of one tile after another, as their places in shared
// memory become free.

#include "seer/kernels/attention/sm90/dense/config.h"

namespace seer::kernels::attention::dense {

// One thread. `take` gives the next place of the order; it is asked until one is past the end.
template <class Config, class Take>
__device__ __forceinline__ void produce(const PackedAttentionParams& p, const Maps& maps,
                                        const TileOrder& order, int kept_steps,
                                        typename Config::Smem& smem, Take take) {
  constexpr int kStages = Config::kStages, kKeys = Config::kKeys,
                kTileBytes = Config::kChunks * Config::kKeyChunk;
  const auto end = static_cast<unsigned long long>(order.places * order.heads);
  uint32_t keys = 0, values = 0;  // loaded so far

  const auto load = [&](uint8_t(&ring)[kStages][kTileBytes], uint64_t(&full)[kStages],
                        uint64_t(&empty)[kStages], uint32_t n, const CUtensorMap* map, int head,
                        int token) {
    const uint32_t slot = n % kStages;
    // Its last readers are done.
    if (n >= kStages) ptx::mbarrier_wait(ptx::smem_address(&empty[slot]), (n / kStages & 1) ^ 1);
    ptx::mbarrier_expect_tx(ptx::smem_address(&full[slot]), kTileBytes);
    load_tile<kKeys, Config::kHeadDim>(ring[slot], map, &full[slot], head, token,
                                       ptx::CacheHint::kNormal);
  };

  unsigned long long at = take();
  for (uint32_t n = 0;; ++n) {
    DenseTile tile;
    tile.num_queries = 0;
    while (at < end && tile.num_queries <= 0) {
      tile = DenseTile::find<Config::kQueries, kKeys>(p, order, static_cast<int64_t>(at));
      at = take();  // arrives while this tile is loaded
    }
    const uint32_t query_full = ptx::smem_address(&smem.query_full);
    if (n > 0) ptx::mbarrier_wait(ptx::smem_address(&smem.query_empty), (n & 1) ^ 1);
    smem.tile[n & 1] = tile;
    if (tile.num_queries <= 0) {  // no more
      ptx::mbarrier_arrive(query_full);
      return;
    }
    ptx::mbarrier_expect_tx(query_full, sizeof(smem.query));
    for (int w = 0; w < Config::kQueries / kRow; ++w) {
      load_tile<kRow, Config::kHeadDim>(smem.query[w], &maps.q, &smem.query_full, tile.head,
                                        tile.q_begin + w * kRow, ptx::CacheHint::kEvictFirst);
    }
    for (int i = 0; i <= tile.num_steps; ++i) {
      const int token = tile.key_token((tile.num_steps - 1 - i) * kKeys);
      if (i < tile.num_steps) {
        load(smem.key, smem.key_full, smem.key_empty, keys++, &maps.k, tile.kv_head, token);
      }
      if constexpr (Config::kHasValues) {
        if (i > 0) {
          load(smem.value, smem.value_full, smem.value_empty, values++, &maps.v, tile.kv_head,
               token + kKeys);
        }
      }
    }
    for (int step = tile.num_steps - 1 - kept_steps; step >= 0; --step) {
      load(smem.key, smem.key_full, smem.key_empty, keys++, &maps.k, tile.kv_head,
           tile.key_token(step * kKeys));
    }
  }
}

}  // namespace seer::kernels::attention::dense
