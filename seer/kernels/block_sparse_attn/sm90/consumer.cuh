#pragma once
// A consumer warpgroup: computes rows from what comes through its ring.

#include "seer/kernels/block_sparse_attn/sm90/ring.cuh"
#include "seer/kernels/block_sparse_attn/sm90/row_state.cuh"

namespace seer::kernels::sm90 {

// Values of tokens behind a sequence's end become zero, so that nothing of them (NaN, say) gets
// through a weight of zero. `first`: the first such row of the tile.
template <class Config>
__device__ __forceinline__ void clear_rows(uint8_t* tile, int first, int barrier) {
  constexpr int kChunks = Config::kColumns / 8;  // of 16 bytes
#pragma unroll 1
  for (int i = threadIdx.x % kWarpgroup; i < (kTile - first) * kChunks; i += kWarpgroup) {
    const int row = first + i / kChunks, c = i % kChunks;
    *reinterpret_cast<uint4*>(tile + c / 8 * Config::kChunkBytes + row * 128 + c % 8 * 16) =
        make_uint4(0, 0, 0, 0);
  }
  ptx::fence_proxy_async();
  ptx::named_barrier_sync(barrier, kWarpgroup);  // the zeros are in place for all warps
}

// One step of a row: a tile of keys and its values. `keys_read` is called between them.
template <class Config, class KeysRead>
__device__ __forceinline__ void compute_step(RowState<Config>& state, Ring<Config>& ring,
                                             int first_limit, int k_len, int barrier,
                                             KeysRead keys_read) {
  ring.wait_full();
  // Who reads it is who gives the tile back, for all.
  int key0 = state.lane == 0 ? ring.key0() : 0;
  state.compute_scores(ptx::smem_address(ring.tile()));
  key0 = __shfl_sync(kAllLanes, key0, 0);
  ring.release();
  keys_read();
  ring.next();

  if (key0 + kTile - 1 > first_limit || key0 + kTile > k_len) {
    const int limit = first_limit + state.warp * 16 + (state.lane >> 2);
    state.mask(min(limit, k_len - 1) - key0, min(limit + 8, k_len - 1) - key0);
  }
  state.update_max();

  ring.wait_full();
  if (k_len - key0 < kTile) clear_rows<Config>(ring.tile(), max(k_len - key0, 0), barrier);
  state.add_output(ptx::smem_address(ring.tile()));
  ring.release();
  ring.next();
}

template <class Config>
__device__ __forceinline__ void compute_rows(const BlockSparseAttnParams& p,
                                             typename Config::Smem& smem, int w) {
  auto& signals = smem.signals[w];
  Ring<Config> ring(smem, w);
  uint32_t query_parity = 0;
  RowState<Config> state(p.scale);
  const uint32_t zero = p.num_seqs >> 31;  // in a way that the compiler does not see
  for (int r = 0;; r = (r + 1) % Config::kRows) {
    const Row& row = signals.row[r];
    int num_steps;
    if constexpr (Config::kQueriesInRegisters) {
      ring.wait_full();
      num_steps = row.num_steps;
      if (num_steps == kNoRow) return;
      const uint32_t when_read = state.begin(ptx::smem_address(ring.tile()), zero);
      ptx::named_barrier_sync(1 + w, kWarpgroup);  // before anyone's clear_rows() of this slot
      ring.release(when_read);
      ring.next();
    } else {
      ptx::mbarrier_wait(ptx::smem_address(&signals.query_full), query_parity);
      query_parity ^= 1;
      // Who reads it is who gives tiles back, after which the row is written anew, for all.
      num_steps = __shfl_sync(kAllLanes, state.lane == 0 ? row.num_steps : 0, 0);
      if (num_steps == kNoRow) return;
      state.begin(ptx::smem_address(smem.channel[w].query), zero);
    }
    const int k_len = row.k_len, limit = row.limit;
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
    state.store(p, row);
  }
}

}  // namespace seer::kernels::sm90
