#pragma once
// Dense attention with the pooled map for sm_80 and later chips, with cp.async and mma.sync.
//
// A thread block computes tiles of 64 queries of one head, one after another: it walks the keys in
// steps with an online softmax and keeps the largest score of every query in every step in its part
// of the workspace, [steps][64]. When the log-sum-exp of the queries is known, the maxima become
// weights and the map takes the largest of each block. A warp has 16 of the queries and all keys of
// a step.
//
//   two stages   top of step i: k[i + 1] and v[i + 1] start; they travel during the whole step
//   one stage    v[i] travels during S = q k[i]^T, k[i + 1] during O += P v[i]

#include <algorithm>

#include "seer/kernels/cuda_check.h"
#include "seer/kernels/device/softmax_sm80.cuh"
#include "seer/kernels/pooled_attn/map_rows.h"
#include "seer/kernels/pooled_attn/map_tile.cuh"
#include "seer/kernels/pooled_attn/query_tile.cuh"
#include "seer/kernels/pooled_attn/sm80/config.h"

namespace seer::kernels::pooled_sm80 {

// Scores of keys behind the last that a thread's two rows see (counted from the step's first)
// become -inf.
template <int kTiles>
__device__ __forceinline__ void mask(float (&rS)[kTiles][4], int last0, int last1) {
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (8 * n + e % 2 > (e < 2 ? last0 : last1) - column) rS[n][e] = -INFINITY;
    }
  }
}

// Normalises and stores o, two elements a time, and lse; `smem_lse` gets it for the map.
template <class Element, int kTiles>
__device__ __forceinline__ void store(const PooledAttnParams& p, const QueryTile& tile, int row0,
                                      const float (&rO)[kTiles][4], device::OnlineSoftmax& softmax,
                                      float* smem_lse) {
  float inverse[2], lse[2];
  softmax.finish(inverse, lse);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = row0 + 8 * r;
    const bool is_inside = row < tile.num_queries;
    if (threadIdx.x % 4 == 0) {
      smem_lse[row] =
          is_inside && lse[r] != -INFINITY ? lse[r] * 1.44269504f : INFINITY;  // in log2
    }
    if (!is_inside) continue;
    const int64_t token = tile.q_begin + row;
    Element* gO = static_cast<Element*>(p.o.data) + token * p.o.token_stride +
                  tile.head * p.o.head_stride + threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      *reinterpret_cast<uint32_t*>(gO + 8 * n) =
          ptx::pack<Element>(rO[n][2 * r] * inverse[r], rO[n][2 * r + 1] * inverse[r]);
    }
    if (threadIdx.x % 4 == 0) p.lse[tile.head * p.total_q + token] = lse[r];
  }
}

// One tile: o and lse are written, the maxima are complete.
template <class Config>
__device__ __forceinline__ void attend(const PooledAttnParams& p, const QueryTile& tile,
                                       typename Config::Smem& smem, float* maxima) {
  using Element = typename Config::Element;
  constexpr int kD = Config::kHeadDim, kKeys = Config::kKeys;
  constexpr bool kTwoStages = !Config::kIsWide;

  // A step begins before the sequence's end: it has one key at least.
  const auto start_copy = [&](const auto& to, const StridedIn& x, int step) {
    const Element* g = static_cast<const Element*>(x.data) +
                       int64_t{tile.k_begin + step * kKeys} * x.token_stride +
                       tile.kv_head * x.head_stride;
    device::load_async<kThreads>(to, g, x.token_stride, tile.k_len - step * kKeys);
  };

  // 1. Queries travel with the first keys.
  device::load_async<kThreads>(smem.query(),
                               static_cast<const Element*>(p.q.data) +
                                   tile.q_begin * p.q.token_stride + tile.head * p.q.head_stride,
                               p.q.token_stride, tile.num_queries);
  if (tile.num_steps > 0) {
    start_copy(smem.k[0], p.k, 0);
    if constexpr (kTwoStages) start_copy(smem.v[0], p.v, 0);
  }
  ptx::cp_async_commit();

  const int warp_row0 = threadIdx.x / 32 * 16;
  uint32_t rQ[Config::kQueriesInRegisters ? kD / 16 : 1][4];
  if constexpr (Config::kQueriesInRegisters) {
    ptx::cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kD / 16; ++k) device::load_left(rQ[k], smem.query(), warp_row0, k);
  }
  const auto query = [&](uint32_t(&rA)[4], int k) {
    if constexpr (Config::kQueriesInRegisters) {
#pragma unroll
      for (int i = 0; i < 4; ++i) rA[i] = rQ[k][i];
    } else {
      device::load_left(rA, smem.query(), warp_row0, k);
    }
  };

  // 2. The keys.
  const int row0 = warp_row0 + threadIdx.x % 32 / 4;  // of this thread, and row0 + 8
  const int warp_limit = tile.limit + tile.slope * warp_row0;
  const float scale_log2 = p.scale * 1.44269504f;
  float rO[kD / 8][4] = {};
  device::OnlineSoftmax softmax;
  for (int step = 0; step < tile.num_steps; ++step) {
    const int stage = kTwoStages ? step % 2 : 0, key0 = step * kKeys;
    ptx::cp_async_wait<0>();
    __syncthreads();  // this step's tiles are here, and no warp reads the last step's
    if constexpr (!kTwoStages) {
      start_copy(smem.v[0], p.v, step);
    } else if (step + 1 < tile.num_steps) {
      start_copy(smem.k[stage ^ 1], p.k, step + 1);
      start_copy(smem.v[stage ^ 1], p.v, step + 1);
    }
    ptx::cp_async_commit();

    float rS[kKeys / 8][4];
    device::multiply_transposed(rS, query, smem.k[stage]);
    if (key0 + kKeys - 1 > warp_limit || key0 + kKeys > tile.k_len) {
      const int last0 = tile.limit - key0 + tile.slope * row0, end = tile.k_len - 1 - key0;
      mask(rS, min(last0, end), min(last0 + 8 * tile.slope, end));
    }
    float top[2], keep[2];
    softmax.row_maxima(rS, top);
    if (threadIdx.x % 4 < 2) {
      const int r = threadIdx.x % 4;
      maxima[int64_t{step} * kQueries + row0 + 8 * r] = r == 0 ? top[0] : top[1];
    }
    softmax.update(rS, top, scale_log2, keep);
    device::rescale(rO, keep);

    if constexpr (!kTwoStages) {
      ptx::cp_async_wait<0>();
      __syncthreads();  // the values are here, and no warp reads the keys
      if (step + 1 < tile.num_steps) start_copy(smem.k[0], p.k, step + 1);
      ptx::cp_async_commit();
    }
    device::multiply_add(rO, rS, smem.v[stage]);
  }
  ptx::cp_async_wait<0>();  // without keys the queries may still travel

  store<Element>(p, tile, row0, rO, softmax, smem.lse);
}

template <class Config>
__global__ void __launch_bounds__(kThreads, Config::kBlocksPerSm)
    attention(const __grid_constant__ PooledAttnParams p, const TileOrder order, int64_t slot) {
  extern __shared__ __align__(128) unsigned char smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::Smem*>(smem_bytes);
  float* maxima = reinterpret_cast<float*>(static_cast<char*>(p.workspace) + blockIdx.x * slot);

  const int64_t end = order.places * order.heads;
  for (int64_t at = blockIdx.x; at < end; at += gridDim.x) {
    const auto tile = QueryTile::find<kQueries, Config::kKeys>(p, order, at);
    if (tile.num_queries <= 0) continue;
    attend<Config>(p, tile, smem, maxima);
    __syncthreads();  // all maxima and log-sum-exps are there

    const BlockMaxima x{
        maxima,     smem.lse,   tile.num_steps, p.block_k / Config::kKeys, p.scale * 1.44269504f,
        tile.limit, tile.slope, Config::kKeys};
    const int64_t map_head = tile.head / (p.num_q_heads / p.num_map_heads);
    float* row = p.map + (map_head * p.num_rows + tile.map_row) * p.num_blocks;
    const bool is_shared = map_rows_are_shared(p, kQueries);
    if (p.block_q == 1) {
      write_rows_of_tokens(x, row, p.num_blocks, tile.num_queries, is_shared);
    } else {
      write_row(x, row, p.num_blocks, is_shared);
    }
    __syncthreads();  // nobody reads maxima or shared memory of this tile
  }
}

template <class Element, int kHeadDim>
void run_attention(const PooledAttnParams& p, void* stream) {
  using C = Config<Element, kHeadDim>;
  const TileOrder order = tile_order(p, kQueries);
  const int64_t slot = slot_bytes(p), slots = slot ? p.workspace_bytes / slot : num_places(order);
  SEER_CHECK(slots > 0, "pooled_attn: the workspace has ", p.workspace_bytes,
             " bytes, want those of pooled_attn_workspace()");
  const int64_t blocks = std::min(std::min(num_places(order), slots), int64_t{1} << 20);
  launch(attention<C>, dim3(static_cast<unsigned>(blocks)), kThreads, sizeof(typename C::Smem),
         stream, p, order, slot);
}

}  // namespace seer::kernels::pooled_sm80
