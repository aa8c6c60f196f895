#pragma once
// 64 queries in the registers of a warpgroup: scores, running softmax, output (attention/sm90/tile.cuh).

#include "seer/kernels/attention/sm90/dense/config.h"

namespace seer::kernels::attention::dense {

template <class Config>
struct Consumer {
  using Element = typename Config::Element;
  static constexpr int kD = Config::kHeadDim;

  const int warp, lane;
  const float scale_log2;  // scale in units of log2
  const uint32_t queries;  // descriptor of this consumer's queries
  float* const maxima;     // [kept steps * 2][64]: this thread's place of the first
  float rS[kKeys / 2], rO[kD / 2];
  uint32_t rP[kKeys / 16][4];
  float max[2], sum[2];  // sum: of this thread's columns only, until store()
  float lse[2];          // in log2, after store(); +inf for rows that do not count, or NaN
  float keep[2];         // the factors that rO still has to be multiplied with
  bool grew;             // whether they are not 1

  // The four lanes of a quad know the same maxima: two rows in two key blocks. Each stores one.
  __device__ __forceinline__ Consumer(float scale, uint32_t query_tile, float* all_maxima)
      : warp(threadIdx.x / 32 % 4),
        lane(threadIdx.x % 32),
        scale_log2(scale * 1.44269504f),
        queries(ptx::wgmma_descriptor(query_tile, 16)),
        maxima(all_maxima + (lane & 1) * kRow + (lane >> 1 & 1) * 8 + warp * 16 + (lane >> 2)) {}

  __device__ __forceinline__ void begin() {
#pragma unroll
    for (float& o : rO) o = 0.f;
    max[0] = max[1] = -INFINITY;
    sum[0] = sum[1] = 0.f;
    grew = false;
  }

  // rS = queries keys^T; starts it.
  __device__ __forceinline__ void start_scores(uint32_t key_tile) {
    const uint32_t keys = ptx::wgmma_descriptor(key_tile, 16);
    ptx::fence_registers(rS);
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < kD / 16; ++k) {
      const int chunk = k / 4, column = k % 4 * 32;  // bytes
      ptx::wgmma_ss_n128<Element>(rS, queries + (chunk * Config::kQueryChunk + column) / 16,
                                  keys + (chunk * Config::kKeyChunk + column) / 16, k > 0);
    }
    ptx::wgmma_commit();
  }

  // rO += rP values; starts it. rO has been multiplied with keep.
  __device__ __forceinline__ void start_output(uint32_t value_tile) {
    const uint32_t values = ptx::wgmma_descriptor(value_tile, Config::kKeyChunk);
    ptx::fence_registers(rO);
    ptx::wgmma_fence();
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
      ptx::wgmma_rs<Element, true>(rO, rP[k], values + k * 16 * 128 / 16, 1);
    }
    ptx::wgmma_commit();
  }

  // Waits until at most kPending of the products above are under way.
  template <int kPending>
  __device__ __forceinline__ void await_scores() {
    ptx::wgmma_wait<kPending>();
    ptx::fence_registers(rS);
  }
  // The store keeps ptxas (13.0.88) from waiting before it has computed the weights: it moves the
  // wait across everything else.
  __device__ __forceinline__ void await_output_after_weights(float* place) {
    *static_cast<volatile float*>(place) = sum[0] + sum[1];
    await_output();
  }
  __device__ __forceinline__ void await_output() {
    ptx::wgmma_wait<0>();
    ptx::fence_registers(rO);
  }

  // The largest score of block b (64 keys) in row r; the quad agrees.
  __device__ __forceinline__ void block_maxima(float (&top)[2][2]) const {
#pragma unroll
    for (int b = 0; b < 2; ++b) {
#pragma unroll
      for (int r = 0; r < 2; ++r) {
        top[b][r] = row_max<64>(rS, 32 * b, r);
      }
    }
  }

  // Scores become weights; their maxima are stored as those of the n-th kept step, or not where that
  // is negative.
  __device__ __forceinline__ void softmax(int n) {
    float top[2][2];
    block_maxima(top);
    const float of_row0 = lane & 1 ? top[1][0] : top[0][0];
    const float of_row1 = lane & 1 ? top[1][1] : top[0][1];
    const float own = lane & 2 ? of_row1 : of_row0;
    if (Config::kPools && n >= 0) maxima[n * kStepMaxima] = own;

    const float t[2] = {fmaxf(top[0][0], top[1][0]), fmaxf(top[0][1], top[1][1])};
    grew = raise_max(t, scale_log2, max, sum, keep);
    to_weights();
  }

  // Scores become weights relative to max; sum takes them in.
  __device__ __forceinline__ void to_weights() {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float base = base_of(max[r], scale_log2);
      float part[2] = {0.f, 0.f};
#pragma unroll
      for (int i = 0; i < kKeys / 2; i += 4) {
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          float& s = rS[i + 2 * r + e];
          s = ptx::exp2_approx(fmaf(s, scale_log2, -base));
          part[e] += s;
        }
      }
      sum[r] += part[0] + part[1];
    }
  }

  __device__ __forceinline__ void pack_weights() {
#pragma unroll
    for (int k = 0; k < kKeys / 16; ++k) {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        rP[k][i] = ptx::pack<Element>(rS[8 * k + 2 * i], rS[8 * k + 2 * i + 1]);
      }
    }
  }

  __device__ __forceinline__ void scale_output() {
    if (!grew) return;
#pragma unroll
    for (int i = 0; i < kD / 2; ++i) rO[i] *= keep[i >> 1 & 1];
  }

  // Normalised output (where there are values) and log-sum-exp of the first num_queries queries; smem_lse [64] gets the
  // latter for the map.
  __device__ __forceinline__ void store(const PackedAttentionParams& p, int head, int64_t q_begin,
                                        int num_queries, float* smem_lse) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float s = quad_sum(sum[r]);
      const int query = warp * 16 + (lane >> 2) + 8 * r;
      const bool is_inside = query < num_queries;
      const int64_t token = q_begin + query;
      if constexpr (Config::kHasValues) {
        store_row<Element, kD>(p.o, head, token, is_inside, r, inverse_of(s),
                               [&](int i) { return &rO[i]; });
      }
      lse[r] = is_inside && s != 0.f ? max[r] * scale_log2 + log2f(s) : INFINITY;
      if ((lane & 3) == 0) {
        if constexpr (Config::kPools) smem_lse[query] = lse[r];
        if (is_inside) {
          p.lse[head * p.total_q + token] = s == 0.f ? -INFINITY : lse[r] * 0.69314718f;
        }
      }
    }
  }

  // After store(), from scores: the largest weight of each of the step's two key blocks in the warp's
  // rows, in log2; all lanes know it.
  __device__ __forceinline__ void largest_weights(float (&w)[2]) const {
    float top[2][2];
    block_maxima(top);
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      w[b] = fmaxf(fmaf(top[b][0], scale_log2, -lse[0]), fmaf(top[b][1], scale_log2, -lse[1]));
#pragma unroll
      for (int lanes = 4; lanes <= 16; lanes *= 2) {
        w[b] = fmaxf(w[b], __shfl_xor_sync(kAllLanes, w[b], lanes));
      }
    }
  }
};

}  // namespace seer::kernels::attention::dense
