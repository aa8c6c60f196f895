#pragma once
// Online softmax over result fragments of mma.sync: a thread holds two rows, a quad shares them.

#include <cmath>

#include "seer/kernels/device/ptx_sm80.cuh"

namespace seer::device {

struct OnlineSoftmax {
  float max[2] = {-INFINITY, -INFINITY};  // in units of log2, scale included
  float sum[2] = {0.f, 0.f};              // this thread's columns only, until finish()

  // The largest score of each of the thread's two rows; the quad agrees.
  template <int kTiles>
  __device__ __forceinline__ static void row_maxima(const float (&rS)[kTiles][4], float (&top)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      top[r] = fmaxf(rS[0][2 * r], rS[0][2 * r + 1]);
#pragma unroll
      for (int n = 1; n < kTiles; ++n) {
        top[r] = fmaxf(top[r], fmaxf(rS[n][2 * r], rS[n][2 * r + 1]));
      }
      top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffff, top[r], 1));
      top[r] = fmaxf(top[r], __shfl_xor_sync(0xffffffff, top[r], 2));
    }
  }

  // Turns scores into weights in place and gives the factors that bring earlier results along.
  // A score of -inf is a key that the row does not see. `tops`: row_maxima() of the scores.
  template <int kTiles>
  __device__ __forceinline__ void update(float (&rS)[kTiles][4], const float (&tops)[2],
                                         float scale_log2, float (&keep)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      const float top = fmaxf(max[r], tops[r] * scale_log2);
      const float base = top == -INFINITY ? 0.f : top;  // no key seen yet: -inf - -inf is NaN
      keep[r] = ptx::exp2_approx(max[r] - base);
      max[r] = top;
      sum[r] *= keep[r];
#pragma unroll
      for (int n = 0; n < kTiles; ++n) {
#pragma unroll
        for (int e = 2 * r; e < 2 * r + 2; ++e) {
          rS[n][e] = ptx::exp2_approx(rS[n][e] * scale_log2 - base);
          sum[r] += rS[n][e];
        }
      }
    }
  }
  template <int kTiles>
  __device__ __forceinline__ void update(float (&rS)[kTiles][4], float scale_log2,
                                         float (&keep)[2]) {
    float tops[2];
    row_maxima(rS, tops);
    update(rS, tops, scale_log2, keep);
  }

  // The factors that normalise the output; `lse` in natural log. No key seen: 0 and -inf.
  __device__ __forceinline__ void finish(float (&inverse)[2], float (&lse)[2]) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      sum[r] += __shfl_xor_sync(0xffffffff, sum[r], 1);
      sum[r] += __shfl_xor_sync(0xffffffff, sum[r], 2);
      inverse[r] = sum[r] == 0.f ? 0.f : 1.f / sum[r];
      lse[r] = sum[r] == 0.f ? -INFINITY : (max[r] + log2f(sum[r])) * 0.693147181f;
    }
  }
};

// Multiplies the rows of an accumulator by their factors. Once the first keys are seen a maximum
// seldom rises: a vote then saves the products.
template <int kTiles>
__device__ __forceinline__ void rescale(float (&rO)[kTiles][4], const float (&keep)[2]) {
  if (!__any_sync(0xffffffff, keep[0] != 1.f || keep[1] != 1.f)) return;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
    rO[n][0] *= keep[0], rO[n][1] *= keep[0];
    rO[n][2] *= keep[1], rO[n][3] *= keep[1];
  }
}

}  // namespace seer::device
