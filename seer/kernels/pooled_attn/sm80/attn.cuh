#pragma once
// Dense attention with the pooled map for sm_80 and later chips, with cp.async and mma.sync.
//
// A thread block computes tiles of 64 queries of one head, one after another, and keeps the largest
// score of every query in every step of keys in its part of the workspace, [steps][64]. When the
// log-sum-exp of the queries is known, the maxima become weights and the map takes the largest of
// each block.

#include <algorithm>

#include "seer/kernels/attention/sm80/attend.cuh"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/pooled_attn/map_rows.h"
#include "seer/kernels/pooled_attn/map_tile.cuh"
#include "seer/kernels/pooled_attn/sm80/config.h"

namespace seer::kernels::pooled_sm80 {

using attention::kQueries;
using attention::kThreads;

// One tile: o and lse are written, the maxima and smem.lse are complete.
template <class Config, bool kBlockSoftmax>
__device__ __forceinline__ void attend(const PooledAttnParams& p, const DenseTile& tile,
                                       typename Config::Smem& smem, float* maxima) {
  const int row0 = attention::thread_row0();
  const float scale_log2 = p.scale * 1.44269504f;
  float rO[Config::kHeadDim / 8][4], inverse[2], lse[2];
  device::OnlineSoftmax softmax;
  float of_blocks[2] = {0.f, 0.f};  // the sum over blocks in place of that over keys
  attention::attend<Config>(
      p, tile, tile.num_steps, smem.tiles, rO, [](int step) { return step * Config::kKeys; },
      [&](int step, auto& rS, float(&keep)[2]) {
        float top[2];
        softmax.row_maxima(rS, top);
        if (threadIdx.x % 4 < 2) {
          const int r = threadIdx.x % 4;
          maxima[int64_t{step} * kQueries + row0 + 8 * r] = r == 0 ? top[0] : top[1];
        }
        softmax.update(rS, top, scale_log2, keep);
        if constexpr (kBlockSoftmax) {
#pragma unroll
          for (int r = 0; r < 2; ++r) {
            const float base = softmax.max[r] == -INFINITY ? 0.f : softmax.max[r];
            of_blocks[r] =
                of_blocks[r] * keep[r] + ptx::exp2_approx(fmaf(top[r], scale_log2, -base));
          }
        }
      });
  if constexpr (kBlockSoftmax) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {  // the quad agrees on it, and NaN is the sum over keys' alone
      if (!isnan(softmax.sum[r])) softmax.sum[r] = threadIdx.x % 4 == 0 ? of_blocks[r] : 0.f;
    }
  }
  softmax.finish(inverse, lse);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = row0 + 8 * r;
    if (threadIdx.x % 4 == 0) {
      const bool counts = row < tile.num_queries && lse[r] != -INFINITY;
      smem.lse[row] = counts ? lse[r] * 1.44269504f : INFINITY;  // in log2
    }
  }
  attention::store<typename Config::Element>(p, tile, rO, inverse, lse);
}

template <class Config, bool kBlockSoftmax>
__global__ void __launch_bounds__(kThreads, Config::kBlocksPerSm)
    pooled_attention(const __grid_constant__ PooledAttnParams p, const TileOrder order,
                     int64_t slot) {
  extern __shared__ __align__(128) unsigned char smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::Smem*>(smem_bytes);
  float* maxima = reinterpret_cast<float*>(static_cast<char*>(p.workspace) + blockIdx.x * slot);

  const int64_t end = order.places * order.heads;
  for (int64_t at = blockIdx.x; at < end; at += gridDim.x) {
    const auto tile = DenseTile::find<kQueries, Config::kKeys>(p, order, at);
    if (tile.num_queries <= 0) continue;
    attend<Config, kBlockSoftmax>(p, tile, smem, maxima);
    __syncthreads();  // all maxima and log-sum-exps are written

    const BlockMaxima x{.maxima = maxima,
                        .lse = smem.lse,
                        .num_steps = tile.num_steps,
                        .steps_per_block = p.block_k / Config::kKeys,
                        .scale_log2 = p.scale * 1.44269504f,
                        .limit = tile.limit,
                        .k_len = tile.k_len,
                        .step_keys = Config::kKeys,
                        .smallest = kBlockSoftmax ? kSmallestBlockWeight : -INFINITY};
    float* row = map_row_of(p, tile, 0);
    const bool is_shared = map_rows_are_shared(p, kQueries);
    if (p.block_q == 1) {
      write_rows_of_tokens(x, row, p.num_blocks, tile.num_queries, is_shared);
    } else {
      write_row(x, row, p.num_blocks, is_shared);
    }
    __syncthreads();  // no thread still reads maxima or shared memory of this tile
  }
}

template <class Element, int kHeadDim, bool kBlockSoftmax>
void run_attention(const PooledAttnParams& p, void* stream) {
  using C = Config<Element, kHeadDim>;
  const TileOrder order = tile_order(p, kQueries, p.num_blocks * p.block_k);
  const int64_t slot = slot_bytes(p), slots = slot ? p.workspace_bytes / slot : num_places(order);
  SEER_CHECK(slots > 0, "pooled_attn: the workspace has ", p.workspace_bytes,
             " bytes, want those of pooled_attn_workspace()");
  const int64_t blocks = std::min(std::min(num_places(order), slots), int64_t{1} << 20);
  launch(pooled_attention<C, kBlockSoftmax>, dim3(static_cast<unsigned>(blocks)), kThreads,
         sizeof(typename C::Smem), stream, p, order, slot);
}

}  // namespace seer::kernels::pooled_sm80
