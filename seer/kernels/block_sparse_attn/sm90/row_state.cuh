#pragma once
// One row in the registers of a warpgroup: queries, running softmax (online, as in
// FlashAttention-2, arXiv 2307.08691), output.
//
// Layout of the accumulators (m64nNk16): warp w, lane l hold rows 16 w + l / 4 and 8 below; of every
// group of eight columns the two at l % 4 * 2. r = 0, 1 counts a thread's two rows.

#include <cmath>

#include "seer/kernels/block_sparse_attn/params.h"
#include "seer/kernels/block_sparse_attn/sm90/rows.cuh"
#include "seer/kernels/device/wgmma_sm90.cuh"

namespace seer::kernels::sm90 {

template <class Config>
struct RowState {
  using Element = typename Config::Element;
  static constexpr int kD = Config::kHeadDim;
  static constexpr int kQuerySteps = kD / 16;          // wgmma steps over the features
  static constexpr int kGroups = kD > 128 ? 2 : 1;     // wgmma has at most 128 columns here
  static constexpr int kGroupRegs = kD / kGroups / 2;  // output registers of a group
  static constexpr bool kInRegisters = Config::kQueriesInRegisters;

  const int warp, lane;
  const float scale_log2;     // scale in units of log2
  uint32_t query_descriptor;  // where queries stay in shared memory
  uint32_t rQ[kInRegisters ? kQuerySteps : 1][4], rP[4][4];
  float rS[32], rO[kGroups][kGroupRegs];
  float max[2], sum[2];  // sum: of this thread's columns only, until store()

  __device__ explicit RowState(float scale)
      : warp(threadIdx.x / 32 % 4), lane(threadIdx.x % 32), scale_log2(scale * 1.44269504f) {}

  // A new row; its queries are in `tile`. Returns a number that is zero where `zero` is, and not known
  // before all of them are in registers: who adds it to an address waits until then. That is needed
  // before the tile is given back (the copy engine does not wait for ordinary reads), and before the
  // first product: ptxas 13.0.88 does not wait for ldmatrix where only wgmma reads what it loaded.
  __device__ __forceinline__ uint32_t begin(uint32_t tile, uint32_t zero) {
    uint32_t read = 0;
    if constexpr (kInRegisters) {
      const int row = warp * 16 + (lane & 15);
#pragma unroll
      for (int k = 0; k < kQuerySteps; ++k) {
        const int chunk = (k & 3) * 2 + (lane >> 4);  // of 16 bytes, permuted within the row
        ptx::ldmatrix_x4(
            rQ[k], tile + (k >> 2) * Config::kChunkBytes + row * 128 + ((chunk ^ (row & 7)) << 4));
      }
#pragma unroll
      for (int k = 0; k < kQuerySteps; ++k) read ^= rQ[k][0];
    } else {
      query_descriptor = ptx::wgmma_descriptor(tile, 16);
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (float& o : rO[g]) o = 0.f;
    }
    max[0] = max[1] = -INFINITY;
    sum[0] = sum[1] = 0.f;
    return read & zero;
  }

  // rS = queries keys^T
  __device__ __forceinline__ void compute_scores(uint32_t key_tile) {
    const uint32_t keys = ptx::wgmma_descriptor(key_tile, 16);
    ptx::fence_registers(rS);
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < kQuerySteps; ++k) {
      const uint32_t offset = ((k >> 2) * Config::kChunkBytes + (k & 3) * 32) / 16;
      if constexpr (kInRegisters) {
        ptx::wgmma_rs<Element, false>(rS, rQ[k], keys + offset, k > 0);
      } else {
        ptx::wgmma_ss_n64<Element>(rS, query_descriptor + offset, keys + offset, k > 0);
      }
    }
    ptx::wgmma_commit();
    ptx::wgmma_wait<0>();  // scores are complete
    ptx::fence_registers(rS);
  }

  // Hides the keys of a tile past `last` (counted from the tile's first) from row r.
  __device__ __forceinline__ void mask(int last0, int last1) {
    last0 -= (lane & 3) * 2;
    last1 -= (lane & 3) * 2;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int column = i / 4 * 8 + (i & 1);
      rS[i] = column > (i & 2 ? last1 : last0) ? -INFINITY : rS[i];
    }
  }

  // The running maximum takes in the scores; output and sum so far are brought to it.
  __device__ __forceinline__ void update_max() {
    float top[2] = {rS[0], rS[2]};
#pragma unroll
    for (int i = 0; i < 32; i += 4) {
      top[0] = fmaxf(top[0], fmaxf(rS[i], rS[i + 1]));
      top[1] = fmaxf(top[1], fmaxf(rS[i + 2], rS[i + 3]));
    }
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      top[r] = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 1));
      top[r] = fmaxf(top[r], __shfl_xor_sync(kAllLanes, top[r], 2));
    }
    // Weights may grow up to 2^8 before the output is brought along: it is rarely needed.
    if (__any_sync(kAllLanes,
                   (top[0] - max[0]) * scale_log2 > 8.f || (top[1] - max[1]) * scale_log2 > 8.f)) {
      rescale(top);
    }
  }

  // rO += exp(scores) values. Products of the first keys run while weights of the next are computed.
  __device__ __forceinline__ void add_output(uint32_t value_tile) {
    const uint32_t values = ptx::wgmma_descriptor(value_tile, Config::kChunkBytes);
    float base[2], part[2][2] = {};
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      // a row that has seen no key: avoid inf - inf
      base[r] = max[r] == -INFINITY ? 0.f : max[r] * scale_log2;
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) ptx::fence_registers(rO[g]);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const int r = i >> 1 & 1;
        float& s = rS[8 * k + i];
        s = ptx::exp2_approx(fmaf(s, scale_log2, -base[r]));
        part[r][i & 1] += s;
      }
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        rP[k][i] = ptx::pack<Element>(rS[8 * k + 2 * i], rS[8 * k + 2 * i + 1]);
      }
      ptx::wgmma_fence();
#pragma unroll
      for (int g = 0; g < kGroups; ++g) {
        const uint32_t offset = (k * 2048 + g * 2 * Config::kChunkBytes) / 16;
        ptx::wgmma_rs<Element, true>(rO[g], rP[k], values + offset, 1);
      }
    }
    ptx::wgmma_commit();
#pragma unroll
    for (int r = 0; r < 2; ++r) sum[r] += part[r][0] + part[r][1];
    ptx::wgmma_wait<0>();  // the output is complete, the values are read
#pragma unroll
    for (int g = 0; g < kGroups; ++g) ptx::fence_registers(rO[g]);
  }

  // Normalised output and log-sum-exp, to o and lse or, of a piece of a list, to where the pieces
  // are put together. They go past the caches: nobody reads them again here.
  __device__ __forceinline__ void store(const BlockSparseAttnParams& p, const Row& row) {
    const int quad = lane & 3;
    const bool is_part = p.num_parts > 1;
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float s = sum[r];
      s += __shfl_xor_sync(kAllLanes, s, 1);
      s += __shfl_xor_sync(kAllLanes, s, 2);
      const float inverse = s == 0.f ? 0.f : 1.f / s;  // NaN stays NaN
      const int query = warp * 16 + (lane >> 2) + 8 * r;
      const bool is_inside = query < row.q_left;
      if (is_part) {
        store_part(p, int64_t{row.out} * kTile + query, r, inverse);
      } else {
        const int64_t token = int64_t{row.q_token} + query;
        Element* gO = static_cast<Element*>(p.o.data) + token * p.o.token_stride +
                      row.head * p.o.head_stride + quad * 8;
#pragma unroll
        for (int c = 0; c < kD / 32; ++c) {
          uint32_t x[4];  // x[i]: this lane's pair of the i-th group of eight columns
#pragma unroll
          for (int i = 0; i < 4; ++i) {
            const float* o = output((4 * c + i) * 4 + 2 * r);
            x[i] = ptx::pack<Element>(o[0] * inverse, o[1] * inverse);
          }
          ptx::transpose_quad(x, quad);
          if (is_inside) {
            __stcs(reinterpret_cast<uint4*>(gO + 32 * c), make_uint4(x[0], x[1], x[2], x[3]));
          }
        }
      }
      if (quad == 0 && (is_part || is_inside)) {
        float* const lse = is_part ? partial_lse(p) + int64_t{row.out} * kTile
                                   : p.lse + row.head * p.total_q + row.q_token;
        lse[query] = s == 0.f ? -INFINITY : (max[r] * scale_log2 + log2f(s)) * 0.69314718f;
      }
    }
  }

 private:
  __device__ __forceinline__ const float* output(int i) const {
    return &rO[i / kGroupRegs][i % kGroupRegs];
  }

  __device__ __forceinline__ void store_part(const BlockSparseAttnParams& p, int64_t query, int r,
                                             float inverse) const {
    float* const to = p.partials + query * kD + (lane & 3) * 2;
#pragma unroll
    for (int i = 0; i < kD / 8; ++i) {
      const float* o = output(4 * i + 2 * r);
      __stcs(reinterpret_cast<float2*>(to + 8 * i), make_float2(o[0] * inverse, o[1] * inverse));
    }
  }

  __device__ __forceinline__ void rescale(const float (&top)[2]) {
    float keep[2];
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float m = fmaxf(top[r], max[r]);
      keep[r] = m == -INFINITY ? 1.f : ptx::exp2_approx((max[r] - m) * scale_log2);
      max[r] = m;
      sum[r] *= keep[r];
    }
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int i = 0; i < kGroupRegs; ++i) rO[g][i] *= keep[i >> 1 & 1];
    }
  }
};

}  // namespace seer::kernels::sm90
