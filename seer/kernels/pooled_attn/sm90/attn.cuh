#pragma once
// Dense attention with the pooled map for sm_90a, with wgmma and bulk tensor copies. The overlap of
// products and softmax follows FlashAttention-3 (arXiv 2407.08608).
//
// A thread block, one on each multiprocessor, takes tiles of 128 queries of one head as long as there
// are any, the longest first. A thread loads; two consumer warpgroups have 64 of the queries each and
// share the keys and values:
//
//   producer      next tile ─► q;  k[i], v[i - 1] ─► rings, last keys first (the masked ones)
//   consumer      k[i]     ─► S = q k^T ─────────► maxima ─► workspace
//                 v[i - 1] ─► O = keep * O + P v ┐  │
//                                                └──┴─► P = softmax(S), while O += P v still runs
//   end of tile   o, lse; maxima and lse ─► map
//
// For the map alone (MapConfig) there are 256 queries, four consumers and no values:
//
//   consumer      k[i]     ─► S = q k^T ─────────► maxima ─► workspace;  sum of exp(S)
//
// The maxima of a tile, [keys / 64][64] for each consumer, lie in the thread block's part of the
// workspace: a row's weights are known only when its last key was seen. Where that part is too short
// for a row, the scores of the steps that it does not hold (the first keys, which come last) are
// computed again, with lse known.

#include "seer/kernels/pooled_attn/map_rows.h"
#include "seer/kernels/pooled_attn/map_tile.cuh"
#include "seer/kernels/pooled_attn/sm90/frame.cuh"

namespace seer::kernels::pooled_sm90 {

// The map of the steps that were not kept, from scores anew.
template <class Config>
__device__ __forceinline__ void pool_again(const dense::Walk<Config>& walk,
                                           const PooledAttnParams& p, float* map_row,
                                           uint32_t keys) {
  auto& x = walk.x;
  int nan_end = 0;  // blocks that begin before this key are NaN (map_tile.cuh)
  if (__any_sync(kAllLanes, isnan(x.lse[0] + x.lse[1]))) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      if (!isnan(x.lse[r])) continue;
      nan_end = max(nan_end, (r == 0 ? walk.limit0 : walk.limit1) + 1);
      x.lse[r] = INFINITY;
    }
    nan_end = __reduce_max_sync(kAllLanes, nan_end);
  }
  const bool is_one_block = p.block_k == kKeys;
  for (int i = 0; i < walk.first_kept; ++i) {
    const int step = walk.first_kept - 1 - i;
    walk.compute_scores(step, keys + i);
    float weight[2];
    x.largest_weights(weight);
    const int64_t block = int64_t{step} * (is_one_block ? 1 : 2) + x.lane;
    float largest =
        is_one_block ? fmaxf(weight[0], weight[1]) : (x.lane == 0 ? weight[0] : weight[1]);
    if (walk.num_queries > 0 && x.lane < (is_one_block ? 1 : 2) && block < p.num_blocks) {
      const bool is_nan = block * p.block_k < nan_end;
      put_weight(map_row + block, is_nan ? nan_weight() : ptx::exp2_approx(largest), true);
    }
  }
}

template <class Config>
__device__ __forceinline__ void consume(const PooledAttnParams& p, int kept_steps,
                                        typename Config::Smem& smem, int w) {
  float* const maxima =
      reinterpret_cast<float*>(static_cast<char*>(p.workspace) + kCounterBytes) +
      (int64_t{blockIdx.x} * Config::kConsumers + w) * kept_steps * dense::kStepMaxima;
  dense::attend_tiles<Config>(
      p, kept_steps, smem, w, maxima, [&](const auto& walk, uint32_t& keys, const DenseTile& tile) {
        float* const map = map_row_of(p, tile, w * kRow);
        if (walk.first_kept > 0) pool_again(walk, p, map, keys);
        keys += walk.first_kept;
        if (walk.first_kept > 0 || walk.num_steps == 0) walk.release_queries();

        ptx::named_barrier_sync(dense::barrier_of(w), kWarpgroup);  // all maxima, lse are written
        if (walk.num_queries > 0) {
          const int64_t first_block = int64_t{walk.first_kept} * kKeys / p.block_k;
          const int skipped = walk.first_kept * kKeys;
          const BlockMaxima m{.maxima = maxima,
                              .lse = smem.lse[w],
                              .num_steps = (walk.num_computed() - walk.first_kept) * (kKeys / kRow),
                              .steps_per_block = p.block_k / kRow,
                              .scale_log2 = walk.x.scale_log2,
                              .limit = walk.first_limit - skipped,
                              .k_len = walk.k_len - skipped,
                              .step_keys = kRow};
          write_row(m, map + first_block, p.num_blocks - first_block, map_rows_are_shared(p, kRow));
        }
        ptx::named_barrier_sync(dense::barrier_of(w),
                                kWarpgroup);  // no thread still reads the maxima
      });
}

template <class Config>
__global__ void __launch_bounds__(kThreads<Config>, 1)
    pooled_attention(const __grid_constant__ attention::Maps maps,
                     const __grid_constant__ PooledAttnParams p,
                     const __grid_constant__ TileOrder order, int kept_steps) {
  run_warpgroups<Config>(maps, p, order, kept_steps, [&](typename Config::Smem& smem, int w) {
    consume<Config>(p, kept_steps, smem, w);
  });
}

template <class Element, int kHeadDim>
void run_attention(const PooledAttnParams& p, void* stream) {
  using C = dense::Config<Element, kHeadDim, /*kPools=*/true>;
  run<C>(p, attention::tensor_maps(p), pooled_attention<C>, stream);
}

// lse and the map alone.
template <class Element, int kHeadDim>
void run_map(const PooledAttnParams& p, void* stream) {
  using C = MapConfig<Element, kHeadDim>;
  run<C>(p, maps_without_values(p), pooled_attention<C>, stream);
}

}  // namespace seer::kernels::pooled_sm90
