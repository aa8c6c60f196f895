#pragma once
// A consumer warpgroup: computes tiles of queries from what comes through its ring.

#include "seer/kernels/block_sparse_attn/sm90/ring.cuh"
#include "seer/kernels/block_sparse_attn/sm90/tile_state.cuh"

namespace seer::kernels::sm90 {

// One step: a tile of keys and its values. `keys_read` is called between them.
template <class Config, class KeysRead>
__device__ __forceinline__ void compute_step(TileState<Config>& state, Ring<Config>& ring,
                                             int first_limit, int k_len, int barrier,
                                             KeysRead keys_read) {
  ring.wait_full();
  // The lane that releases the tile reads what comes with it.
  int key0 = state.lane == 0 ? ring.key0() : 0;
  state.compute_scores(ptx::smem_address(ring.tile()));
  key0 = __shfl_sync(kAllLanes, key0, 0);
  ring.release();
  keys_read();
  ring.next();

  if (key0 + kTile - 1 > first_limit || key0 + kTile > k_len) {
    const int limit = first_limit + state.warp * 16 + (state.lane >> 2);
    attention::mask(state.rS, min(limit, k_len - 1) - key0, min(limit + 8, k_len - 1) - key0);
  }
  state.update_max();

  ring.wait_full();
  if (k_len - key0 < kTile) {
    attention::clear_rows<kTile, Config::kColumns>(ring.tile(), max(k_len - key0, 0), barrier);
  }
  state.add_output(ptx::smem_address(ring.tile()));
  ring.release();
  ring.next();
}

template <class Config>
__device__ __forceinline__ void compute_tiles(const BlockSparseAttnParams& p,
                                              typename Config::Smem& smem, int w) {
  auto& signals = smem.signals[w];
  Ring<Config> ring(smem, w);
  uint32_t query_parity = 0;
  TileState<Config> state(p.scale);
  const uint32_t zero = p.num_seqs >> 31;  // opaque to the compiler
  for (int t = 0;; t = (t + 1) % Config::kTiles) {
    const ListedTile& tile = signals.tile[t];
    int num_steps;
    if constexpr (Config::kQueriesInRegisters) {
      ring.wait_full();
      num_steps = tile.num_steps;
      if (num_steps == kNoTile) return;
      const uint32_t when_read = state.begin(ptx::smem_address(ring.tile()), zero);
      ptx::named_barrier_sync(1 + w, kWarpgroup);  // before any clear_rows() of this slot
      ring.release(when_read);
      ring.next();
    } else {
      ptx::mbarrier_wait(ptx::smem_address(&signals.query_full), query_parity);
      query_parity ^= 1;
      // The lane that releases key tiles reads it: after that the place is written anew.
      num_steps = __shfl_sync(kAllLanes, state.lane == 0 ? tile.num_steps : 0, 0);
      if (num_steps == kNoTile) return;
      state.begin(ptx::smem_address(smem.channel[w].query), zero);
    }
    const int k_len = tile.k_len, limit = tile.limit;
#pragma unroll 1
    for (int i = 0; i < num_steps; ++i) {
      compute_step(state, ring, limit, k_len, 1 + w, [&] {
        if constexpr (!Config::kQueriesInRegisters) {
          if (i == num_steps - 1) {
            __syncwarp();
            if (state.lane == 0) ptx::mbarrier_arrive(ptx::smem_address(&signals.query_empty));
          }
        }
      });
    }
    state.store(p, tile);
  }
}

}  // namespace seer::kernels::sm90
