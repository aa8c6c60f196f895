#pragma once
// A loader warp: tiles of queries, keys and values for one consumer warpgroup.

#include "seer/kernels/block_sparse_attn/sm90/ring.cuh"
#include "seer/kernels/block_sparse_attn/sm90/tile_finder.cuh"

namespace seer::kernels::sm90 {

// The key tiles that a list names, in order; 32 entries ahead, one in each lane.
class ListReader {
 public:
  // shift: tiles of a block, log2.
  __device__ __forceinline__ ListReader(int shift) : shift_(shift) {}

  // A new list; its first entries are on their way, `begin` waits for them.
  __device__ __forceinline__ void prefetch(const int32_t* list, int num_steps) {
    window_ = entry(list, num_steps, 0);
  }
  __device__ __forceinline__ void begin(const int32_t* list, int num_steps) {
    ahead_ = entry(list, num_steps, 32);
  }
  // First key of step i; steps in order.
  __device__ __forceinline__ int key0(const int32_t* list, int num_steps, int i) {
    const int block = i >> shift_, tile = i & ((1 << shift_) - 1);
    if (i > 0 && (block & 31) == 0 && tile == 0) {
      window_ = ahead_;
      ahead_ = entry(list, num_steps, block + 32);
    }
    return ((__shfl_sync(kAllLanes, window_, block & 31) << shift_) + tile) * kTile;
  }

 private:
  const int shift_;
  int32_t window_ = 0, ahead_ = 0;

  __device__ __forceinline__ int32_t entry(const int32_t* list, int num_steps, int first) const {
    const int at = first + static_cast<int>(threadIdx.x % 32);
    return at << shift_ < num_steps ? list[at] : 0;
  }
};

__device__ __forceinline__ int log2_tiles(const BlockSparseAttnParams& p) {
  return p.lists.block_k == kTile ? 0 : 1;
}

template <class Config>
__device__ __forceinline__ void load_tiles(const Maps& maps, const BlockSparseAttnParams& p,
                                           typename Config::Smem& smem, int w) {
  auto& signals = smem.signals[w];
  Ring<Config> ring(smem, w);
  TileFinder finder(p, blockIdx.x + gridDim.x * w, gridDim.x * Config::kConsumers);
  ListReader reader(log2_tiles(p));
  uint32_t query_parity = 1;
  finder.find<Config>(&signals.tile[0]);
  reader.prefetch(signals.tile[0].list, signals.tile[0].num_steps);

  for (int t = 0;; t = (t + 1) % Config::kTiles) {
    const ListedTile& tile = signals.tile[t];
    ListedTile* const next = &signals.tile[(t + 1) % Config::kTiles];
    const int num_steps = tile.num_steps;
    if constexpr (Config::kQueriesInRegisters) {
      if (num_steps == kNoTile) return push_nothing(ring);  // the consumer sees the tile
      push(ring, &maps.q, tile.head, tile.q_begin, 0, ptx::CacheHint::kEvictFirst);
    } else {
      ptx::mbarrier_wait(ptx::smem_address(&signals.query_empty), query_parity);
      query_parity ^= 1;
      if (num_steps == kNoTile) {
        if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(ptx::smem_address(&signals.query_full));
        return;
      }
      if (threadIdx.x % 32 == 0) {
        load_tile<Config>(smem.channel[w].query, &maps.q, &signals.query_full, tile.head,
                          tile.q_begin, ptx::CacheHint::kEvictFirst);
      }
    }
    const int32_t* const list = tile.list;
    const int kv_head = tile.kv_head, k_begin = tile.key_token(0);
    reader.begin(list, num_steps);
#pragma unroll 1
    for (int i = 0; i < num_steps; ++i) {
      const int key0 = reader.key0(list, num_steps, i);
      push(ring, &maps.k, kv_head, k_begin + key0, key0, ptx::CacheHint::kNormal);
      push(ring, &maps.v, kv_head, k_begin + key0, key0, ptx::CacheHint::kNormal);
      if (i == 0) {
        finder.next();
        finder.find<Config>(next);
      }
    }
    reader.prefetch(next->list, next->num_steps);
  }
}

}  // namespace seer::kernels::sm90
