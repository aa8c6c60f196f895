#pragma once
// Tiles of keys and values in shared memory, and a warpgroup's 64 queries in registers (online
// softmax as in FlashAttention-2, arXiv 2307.08691).
//
// Tiles are chunks of 64 columns, rows of 128 bytes in the 128-byte swizzle; those of 32 columns have rows of 64 bytes in
// the 64-byte swizzle.
// Layout of the accumulators (m64nNk16): warp w, lane l hold rows 16 w + l / 4 and 8 below; of every
// group of eight columns the two at l % 4 * 2. r = 0, 1 counts a thread's two rows.

#include <cmath>

#include "seer/kernels/attention/params.h"
#include "seer/kernels/attention/sm90/dealer.cuh"
#include "seer/kernels/device/wgmma_sm90.cuh"

namespace seer::kernels::attention {

constexpr int kWarpgroup = 128;  // threads

constexpr int row_bytes(int columns) {
  return columns == 32 ? 64 : 128;
}

// Starts the copy of a tile of kRows tokens; `full` counts its bytes. One thread.
template <int kRows, int kColumns>
__device__ __forceinline__ void load_tile(uint8_t* tile, const CUtensorMap* map, uint64_t* full,
                                          int head, int token, ptx::CacheHint hint) {
  const uint32_t bar = ptx::smem_address(full), to = ptx::smem_address(tile);
#pragma unroll
  for (int c = 0; c < (kColumns + 63) / 64; ++c) {  // zeros behind the last column
#pragma unroll
    for (int row = 0; row < kRows; row += 64) {
      ptx::tma_load_3d(to + (c * kRows + row) * row_bytes(kColumns), map, bar, 64 * c, head,
                       token + row, hint);
    }
  }
}

// Values of tokens behind a sequence's end become zero, so that nothing of them (NaN, say) gets
// through a weight of zero. `first`: the first such row of the tile. For a warpgroup, whose hardware
// barrier is `barrier`.
template <int kRows, int kColumns>
__device__ __forceinline__ void clear_rows(uint8_t* tile, int first, int barrier) {
  constexpr int kPieces = kColumns / 8;  // of 16 bytes
#pragma unroll 1
  for (int i = threadIdx.x % kWarpgroup; i < (kRows - first) * kPieces; i += kWarpgroup) {
    const int row = first + i / kPieces, c = i % kPieces;
    *reinterpret_cast<uint4*>(tile + c / 8 * (kRows * 128) + row * 128 + c % 8 * 16) =
        make_uint4(0, 0, 0, 0);
  }
  ptx::fence_proxy_async();
  ptx::named_barrier_sync(barrier, kWarpgroup);  // the zeros are in place for all warps
}

// Hides the keys of a tile past `last` (counted from the tile's first) from row r.
template <int kN>
__device__ __forceinline__ void mask(float (&rS)[kN], int last0, int last1) {
  const int column0 = threadIdx.x % 4 * 2;
  last0 -= column0;
  last1 -= column0;
#pragma unroll
  for (int i = 0; i < kN; ++i) {
    const int column = i / 4 * 8 + (i & 1);
    rS[i] = column > (i & 2 ? last1 : last0) ? -INFINITY : rS[i];
  }
}

// The largest of the scores rS[kFirst] and on, of kColumns columns, in row r; the quad agrees.
template <int kColumns, int kN>
__device__ __forceinline__ float row_max(const float (&rS)[kN], int first, int r) {
  const float* s = rS + first + 2 * r;
  float top = fmaxf(s[0], s[1]);
#pragma unroll
  for (int i = 4; i < kColumns / 2; i += 4) top = fmaxf(top, fmaxf(s[i], s[i + 1]));
  top = fmaxf(top, __shfl_xor_sync(kAllLanes, top, 1));
  return fmaxf(top, __shfl_xor_sync(kAllLanes, top, 2));
}

// The running maxima of a thread's two rows take in `top`; keep gets the factors of what was summed
// before. False: nothing has changed. Weights may grow up to 2^8 before that: it is rarely needed.
__device__ __forceinline__ bool raise_max(const float (&top)[2], float scale_log2, float (&max)[2],
                                          float (&sum)[2], float (&keep)[2]) {
  const bool grew = __any_sync(
      kAllLanes, (top[0] - max[0]) * scale_log2 > 8.f || (top[1] - max[1]) * scale_log2 > 8.f);
  if (grew) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float m = fmaxf(top[r], max[r]);
      keep[r] = m == -INFINITY ? 1.f : ptx::exp2_approx((max[r] - m) * scale_log2);
      max[r] = m;
      sum[r] *= keep[r];
    }
  }
  return grew;
}

// A row's exponents are relative to this.
__device__ __forceinline__ float base_of(float max, float scale_log2) {
  return max == -INFINITY ? 0.f : max * scale_log2;  // a row that has seen no key: no inf - inf
}

// The sum over a quad, and the factor that normalises the output.
__device__ __forceinline__ float quad_sum(float sum) {
  sum += __shfl_xor_sync(kAllLanes, sum, 1);
  return sum + __shfl_xor_sync(kAllLanes, sum, 2);
}
__device__ __forceinline__ float inverse_of(float sum) {
  return sum == 0.f ? 0.f : 1.f / sum;  // NaN stays NaN
}

// Row r of an output of kD columns, times `factor`, past the caches: it is not read again here.
// output(i): two registers of the accumulator, i and on. All lanes call it.
template <class Element, int kD, class Output>
__device__ __forceinline__ void store_row(const StridedOut& to, int head, int64_t token,
                                          bool is_inside, int r, float factor,
                                          const Output& output) {
  const int quad = threadIdx.x & 3;
  Element* g =
      static_cast<Element*>(to.data) + token * to.token_stride + head * to.head_stride + quad * 8;
#pragma unroll
  for (int c = 0; c < kD / 32; ++c) {
    uint32_t x[4];  // x[i]: this lane's pair of the i-th group of eight columns
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float* o = output((4 * c + i) * 4 + 2 * r);
      x[i] = ptx::pack<Element>(o[0] * factor, o[1] * factor);
    }
    ptx::transpose_quad(x, quad);
    if (is_inside) {
      __stcs(reinterpret_cast<uint4*>(g + 32 * c), make_uint4(x[0], x[1], x[2], x[3]));
    }
  }
}

}  // namespace seer::kernels::attention
