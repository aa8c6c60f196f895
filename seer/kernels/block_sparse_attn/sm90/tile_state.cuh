#pragma once
// One tile of queries in the registers of a warpgroup: queries, running softmax, output.

#include "seer/kernels/block_sparse_attn/sm90/config.h"

namespace seer::kernels::sm90 {

template <class Config>
struct TileState {
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

  __device__ explicit TileState(float scale)
      : warp(threadIdx.x / 32 % 4), lane(threadIdx.x % 32), scale_log2(scale * 1.44269504f) {}

  // New queries, which are in `tile`. Returns zero where `zero` is zero, computed from all of them: an
  // address that it is added to waits until they are in registers. That is needed before the tile is
  // released (the copy engine does not wait for ordinary reads), and before the first product: ptxas
  // 13.0.88 does not wait for ldmatrix where only wgmma reads what it loaded.
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

  // Raises the running maximum by the scores, and rescales output and sum to it.
  __device__ __forceinline__ void update_max() {
    const float top[2] = {attention::row_max<64>(rS, 0, 0), attention::row_max<64>(rS, 0, 1)};
    float keep[2];
    if (!attention::raise_max(top, scale_log2, max, sum, keep)) return;
#pragma unroll
    for (int g = 0; g < kGroups; ++g) {
#pragma unroll
      for (int i = 0; i < kGroupRegs; ++i) rO[g][i] *= keep[i >> 1 & 1];
    }
  }

  // rO += exp(scores) values. Products of the first keys run while weights of the next are computed.
  __device__ __forceinline__ void add_output(uint32_t value_tile) {
    const uint32_t values = ptx::wgmma_descriptor(value_tile, Config::kChunkBytes);
    float base[2], part[2][2] = {};
#pragma unroll
    for (int r = 0; r < 2; ++r) base[r] = attention::base_of(max[r], scale_log2);
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

  // Normalised output and log-sum-exp, to o and lse or, of a piece of a list, to p.partials.
  __device__ __forceinline__ void store(const BlockSparseAttnParams& p, const ListedTile& tile) {
    const bool is_part = p.num_parts > 1;
    const auto output = [&](int i) { return &rO[i / kGroupRegs][i % kGroupRegs]; };
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float s = attention::quad_sum(sum[r]), inverse = attention::inverse_of(s);
      const int query = warp * 16 + (lane >> 2) + 8 * r;
      const bool is_inside = query < tile.num_queries;
      if (is_part) {
        float* const to = p.partials + (int64_t{tile.out} * kTile + query) * kD + (lane & 3) * 2;
#pragma unroll
        for (int i = 0; i < kD / 8; ++i) {
          const float* o = output(4 * i + 2 * r);
          __stcs(reinterpret_cast<float2*>(to + 8 * i),
                 make_float2(o[0] * inverse, o[1] * inverse));
        }
      } else {
        attention::store_row<Element, kD>(p.o, tile.head, int64_t{tile.q_begin} + query, is_inside,
                                          r, inverse, output);
      }
      if ((lane & 3) == 0 && (is_part || is_inside)) {
        float* const lse = is_part ? partial_lse(p) + int64_t{tile.out} * kTile
                                   : p.lse + tile.head * p.total_q + tile.q_begin;
        lse[query] = s == 0.f ? -INFINITY : (max[r] * scale_log2 + log2f(s)) * 0.69314718f;
      }
    }
  }
};

}  // namespace seer::kernels::sm90
