#pragma once
// A tile of 64 queries walks over tiles of keys with an online softmax: cp.async and mma.sync. A warp
// has 16 of the queries and all keys of a step.
//
//   two stages   top of step i: k[i + 1] and v[i + 1] start; they travel during the whole step
//   one stage    v[i] travels during S = q k[i]^T, k[i + 1] during O += P v[i]

#include "seer/kernels/attention/params.h"
#include "seer/kernels/attention/sm80/config.h"
#include "seer/kernels/device/softmax_sm80.cuh"

namespace seer::kernels::attention {

// Of the warp; of the first of the two rows of a thread, the other one is 8 below.
__device__ __forceinline__ int warp_row0() {
  return threadIdx.x / 32 * 16;
}
__device__ __forceinline__ int thread_row0() {
  return warp_row0() + threadIdx.x % 32 / 4;
}

// Scores of keys behind the last that a thread's two rows see (counted from the tile's first)
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

// rO = weights values, not normalised. first_key(i): the first key of step i, below k_len; asked for
// steps behind the last, too. weigh(i, rS, keep): the masked scores of a step become weights, and keep
// the factors of what was summed before.
template <class Config, class FirstKey, class Weigh>
__device__ __forceinline__ void attend(const PackedAttentionParams& p, const QueryTile& tile,
                                       int num_steps, typename Config::Tiles& smem,
                                       float (&rO)[Config::kHeadDim / 8][4],
                                       const FirstKey& first_key, const Weigh& weigh) {
  using Element = typename Config::Element;
  constexpr int kD = Config::kHeadDim, kKeys = Config::kKeys;
  constexpr bool kTwoStages = !Config::kIsWide;

  const auto start_copy = [&](const auto& to, const StridedIn& x, int key0) {
    const Element* g = static_cast<const Element*>(x.data) +
                       int64_t{tile.key_token(key0)} * x.token_stride +
                       tile.kv_head * x.head_stride;
    device::load_async<kThreads>(to, g, x.token_stride, tile.k_len - key0);
  };

  // 1. Queries travel with the first keys.
  int key0 = first_key(0), next_key0 = first_key(1);
  device::load_async<kThreads>(smem.query(),
                               static_cast<const Element*>(p.q.data) +
                                   tile.q_begin * p.q.token_stride + tile.head * p.q.head_stride,
                               p.q.token_stride, tile.num_queries);
  if (num_steps > 0) {
    start_copy(smem.k[0], p.k, key0);
    if constexpr (kTwoStages) start_copy(smem.v[0], p.v, key0);
  }
  ptx::cp_async_commit();

  uint32_t rQ[Config::kQueriesInRegisters ? kD / 16 : 1][4];
  if constexpr (Config::kQueriesInRegisters) {
    ptx::cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kD / 16; ++k) device::load_left(rQ[k], smem.query(), warp_row0(), k);
  }
  const auto query = [&](uint32_t(&rA)[4], int k) {
    if constexpr (Config::kQueriesInRegisters) {
#pragma unroll
      for (int i = 0; i < 4; ++i) rA[i] = rQ[k][i];
    } else {
      device::load_left(rA, smem.query(), warp_row0(), k);
    }
  };

  // 2. The keys.
#pragma unroll
  for (auto& o : rO) o[0] = o[1] = o[2] = o[3] = 0.f;
  const int warp_last = min(tile.limit + warp_row0(), tile.k_len - 1);
  for (int step = 0; step < num_steps; ++step) {
    const int stage = kTwoStages ? step % 2 : 0;
    ptx::cp_async_wait<0>();
    __syncthreads();  // this step's tiles are here, and no warp reads the last step's
    if constexpr (!kTwoStages) {
      start_copy(smem.v[0], p.v, key0);
    } else if (step + 1 < num_steps) {
      start_copy(smem.k[stage ^ 1], p.k, next_key0);
      start_copy(smem.v[stage ^ 1], p.v, next_key0);
    }
    ptx::cp_async_commit();

    float rS[kKeys / 8][4], keep[2];
    device::multiply_transposed(rS, query, smem.k[stage]);
    if (key0 + kKeys - 1 > warp_last) {
      const int last = tile.limit + thread_row0() - key0, end = tile.k_len - 1 - key0;
      mask(rS, min(last, end), min(last + 8, end));
    }
    weigh(step, rS, keep);
    device::rescale(rO, keep);

    if constexpr (!kTwoStages) {
      ptx::cp_async_wait<0>();
      __syncthreads();  // the values are here, and no warp reads the keys
      if (step + 1 < num_steps) start_copy(smem.k[0], p.k, next_key0);
      ptx::cp_async_commit();
    }
    key0 = next_key0;
    next_key0 = first_key(step + 2);  // a list's entry travels during the product
    device::multiply_add(rO, rS, smem.v[stage]);
  }
  ptx::cp_async_wait<0>();  // without keys the queries may still travel
}

// o, two elements at a time, and lse.
template <class Element, int kTiles>
__device__ __forceinline__ void store(const PackedAttentionParams& p, const QueryTile& tile,
                                      const float (&rO)[kTiles][4], const float (&inverse)[2],
                                      const float (&lse)[2]) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = thread_row0() + 8 * r;
    if (row >= tile.num_queries) continue;
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

}  // namespace seer::kernels::attention
