#pragma once
// Block-sparse attention forward for sm_90a, with wgmma and bulk tensor copies.
//
// A thread block stays on its multiprocessor. It has two to four consumer warpgroups, each of which
// computes one tile at a time (64 queries of one head), and for each of them a loader warp and a ring
// of tiles in shared memory. Consumers know nothing of each other and hide each other's waits.
//
//   loader w     next tile, its list ──► q, k[list[0]], v[list[0]], k[list[1]], ... ──► ring w
//   consumer w   ring w ──► S = q k^T ─► mask ─► P ─► O = keep * O + P v
//
// The loader runs ahead across the end of a tile: queries and first keys of the next one travel while
// this one ends. Where lists name all blocks, all warps compute dense attention (dense.cuh).

#include <algorithm>

#include "seer/kernels/block_sparse_attn/sm90/consumer.cuh"
#include "seer/kernels/block_sparse_attn/sm90/dense.cuh"
#include "seer/kernels/block_sparse_attn/sm90/loader.cuh"
#include "seer/kernels/cuda_check.h"

namespace seer::kernels::sm90 {

template <class Config>
__device__ __forceinline__ void init_barriers(typename Config::Signals& signals) {
  constexpr int kWarps = kWarpgroup / 32;
  for (int i = 0; i < Config::kSlots; ++i) {
    ptx::mbarrier_init(ptx::smem_address(&signals.full[i]), 1);
    ptx::mbarrier_init(ptx::smem_address(&signals.empty[i]), kWarps);
  }
  ptx::mbarrier_init(ptx::smem_address(&signals.query_full), 1);
  ptx::mbarrier_init(ptx::smem_address(&signals.query_empty), kWarps);
  ptx::fence_mbarrier_init();
}

template <class Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    block_sparse_fwd(const __grid_constant__ Maps maps,
                     const __grid_constant__ BlockSparseAttnParams p,
                     const __grid_constant__ TileOrder order) {
  extern __shared__ __align__(1024) uint8_t smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::Smem*>(smem_bytes);
  const int warp = __shfl_sync(kAllLanes, threadIdx.x / 32, 0);
  if constexpr (Config::kCanBeDense) {
    __shared__ bool may_be;
    if (warp == 0) may_be = may_be_dense<Config>(p);
    __syncthreads();  // the lists are sampled
    if (may_be && is_dense(p)) {
      return attend_densely<Config>(maps, p, order, smem_bytes);
    }
  }
  if (threadIdx.x < Config::kConsumers) init_barriers<Config>(smem.signals[threadIdx.x]);
  __syncthreads();  // barriers are ready
  if (warp < kWarpgroup / 32) {
    ptx::give_registers<Config::kLoaderRegisters>();
    if (warp < Config::kConsumers) load_tiles<Config>(maps, p, smem, warp);
  } else {
    ptx::take_registers<Config::kConsumerRegisters>();
    compute_tiles<Config>(p, smem, warp / (kWarpgroup / 32) - 1);
  }
}

template <class Element, int kHeadDim>
void run_block_sparse_fwd(const BlockSparseAttnParams& p, void* stream) {
  using Config = ForwardConfig<Element, kHeadDim>;
  const unsigned tiles = num_parts(p) * p.num_q_heads * tiles_per_head(p);
  const unsigned grid = std::min(tiles, static_cast<unsigned>(num_multiprocessors()));
  size_t smem = sizeof(typename Config::Smem);
  if constexpr (Config::kCanBeDense) {
    smem = std::max(smem, sizeof(typename DenseConfig<Config>::Smem));
  }
  launch(block_sparse_fwd<Config>, grid, Config::kThreads, smem, stream, attention::tensor_maps(p),
         p, tile_order(p, attention::dense::kQueries, p.total_k));
}

}  // namespace seer::kernels::sm90
