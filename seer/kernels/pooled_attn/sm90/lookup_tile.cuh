#pragma once
// Scores of lookup heads: 64 queries of a warpgroup, from the tensor cores to sums and a map row.
//
// What is kept of them is a word for each query and piece of keys: the largest score of 64 keys in f32, or two in f16, of 64 keys
// each. A step is two pieces, and the scores of a piece fill 32 registers: while those of one are looked through, the tensor
// cores compute the other's.

#include <cfloat>

#include "seer/kernels/attention/sm90/dense/walk.cuh"
#include "seer/kernels/pooled_attn/map_tile.cuh"
#include "seer/kernels/pooled_attn/sm90/config.h"

namespace seer::kernels::pooled_sm90 {

constexpr int kPieces = 2;  // of a step

// Scores in f32. A thread has two rows (attention/sm90/tile.cuh).
struct F32Scores {
  using Word = float;
  static __device__ __forceinline__ Word larger(Word a, Word b) { return ptx::max_or_nan(a, b); }
  // The largest of row r among this thread's scores of a piece.
  static __device__ __forceinline__ Word largest(const Word (&s)[32], int r) {
    Word top = larger(s[2 * r], s[2 * r + 1]);
#pragma unroll
    for (int i = 2 * r + 4; i < 32; i += 4) top = larger(top, larger(s[i], s[i + 1]));
    return top;
  }
  template <class Element, int kRowBytes>
  static __device__ __forceinline__ void multiply(Word (&s)[32], const uint32_t (&a)[4], uint32_t b,
                                                  int accumulate) {
    ptx::wgmma_rs<Element, false, kRowBytes>(s, a, b, accumulate);
  }
  static __device__ __forceinline__ void hide(Word (&s)[32], int last0, int last1) {
    attention::mask(s, last0, last1);
  }
  static __device__ __forceinline__ uint32_t bits(Word word) { return __float_as_uint(word); }
  static __device__ __forceinline__ float of_block(uint32_t bits, int) {
    return __uint_as_float(bits);
  }
  static constexpr uint32_t kNone = 0xff800000u;  // -inf
};

// Scores summed in f16. A register has two neighbouring columns, a word the largest of two blocks.
struct F16Scores {
  using Word = uint32_t;
  static __device__ __forceinline__ Word larger(Word a, Word b) {
    return ptx::max_or_nan_f16x2(a, b);
  }
  static __device__ __forceinline__ Word largest(const Word (&s)[32], int r) {
    Word of_block[2];  // of even and of odd columns
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      of_block[b] = s[16 * b + r];
#pragma unroll
      for (int i = 2; i < 16; i += 2) of_block[b] = larger(of_block[b], s[16 * b + r + i]);
    }
    return larger(__byte_perm(of_block[0], of_block[1], 0x5410),
                  __byte_perm(of_block[0], of_block[1], 0x7632));
  }
  template <class Element, int kRowBytes>
  static __device__ __forceinline__ void multiply(Word (&s)[32], const uint32_t (&a)[4], uint32_t b,
                                                  int accumulate) {
    ptx::wgmma_rs_f16<kRowBytes>(s, a, b, accumulate);
  }
  static __device__ __forceinline__ void hide(Word (&s)[32], int last0, int last1) {
    const int column0 = threadIdx.x % 4 * 2;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const int seen = (i & 1 ? last1 : last0) - column0 - i / 2 * 8;  // the last, of this register
      s[i] = seen < 0 ? kNone : seen == 0 ? (s[i] & 0xffffu) | 0xfc000000u : s[i];
    }
  }
  static __device__ __forceinline__ uint32_t bits(Word word) { return word; }
  static __device__ __forceinline__ float of_block(uint32_t bits, int block) {
    return __half2float(__ushort_as_half(static_cast<unsigned short>(block ? bits >> 16 : bits)));
  }
  static constexpr uint32_t kNone = 0xfc00fc00u;  // -inf twice
};

// Of lanes kLane apart the lower one goes on with the first word, the upper one with the second.
template <class Scores, int kLane>
__device__ __forceinline__ typename Scores::Word exchange(typename Scores::Word first,
                                                          typename Scores::Word second) {
  const bool is_upper = threadIdx.x & kLane;
  const auto other = __shfl_xor_sync(kAllLanes, is_upper ? first : second, kLane);
  return Scores::larger(is_upper ? second : first, other);
}

// A thread's part of the sum of a query's weights, in units of log2.
struct PartialSum {
  float top = -FLT_MAX, sum = 0.f;  // sum: relative to 2^top; 0 where nothing was seen

  template <class Scores, int kBlocks>
  __device__ __forceinline__ void add(typename Scores::Word word, float scale_log2) {
    float x[kBlocks], larger = top;
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) {
      x[b] = Scores::of_block(Scores::bits(word), b) * scale_log2;
      larger = fmaxf(larger, x[b]);
    }
    float added = 0.f;
#pragma unroll
    for (int b = 0; b < kBlocks; ++b) added += ptx::exp2_approx(x[b] - larger);
    sum = fmaf(sum, ptx::exp2_approx(top - larger), added);
    top = larger;
  }
  // Neither the order nor which of two threads adds changes a bit.
  __device__ __forceinline__ void merge(float other_top, float other_sum) {
    const float larger = fmaxf(top, other_top);
    sum = __fadd_rn(__fmul_rn(sum, ptx::exp2_approx(top - larger)),
                    __fmul_rn(other_sum, ptx::exp2_approx(other_top - larger)));
    top = larger;
  }
};

// One map row of 64 queries, as write_row (map_tile.cuh): from words [pieces][64], by warp `warp` of `num_warps`.
template <class Config>
__device__ __forceinline__ void write_lookup_row(const BlockMaxima& x, int num_pieces, int warp,
                                                 int num_warps, float* row, int64_t num_blocks,
                                                 bool is_shared) {
  using Scores = typename Config::Scores;
  constexpr int kBlocks = Config::kBlocks, kLoads = 16 / kBlocks;
  const int lane = threadIdx.x % 32, i = lane % 16, half = lane / 16;
  float lse[4];
  int nan_end = 0;  // blocks that begin before this key are NaN
#pragma unroll
  for (int e = 0; e < 4; ++e) {
    lse[e] = x.lse[4 * i + e];
    if (!isnan(lse[e])) continue;
    nan_end = max(nan_end, x.keys_seen(4 * i + e));
    lse[e] = INFINITY;
  }
  nan_end = __reduce_max_sync(kAllLanes, nan_end);
  for (int first = warp * 2 * kLoads; first < num_pieces; first += num_warps * 2 * kLoads) {
    uint4 words[kLoads];
#pragma unroll
    for (int k = 0; k < kLoads; ++k) {
      const int piece = first + 2 * k + half;
      if (piece < num_pieces) {
        words[k] = reinterpret_cast<const uint4*>(x.maxima + int64_t{piece} * kRow)[i];
      } else {
        words[k] = make_uint4(Scores::kNone, Scores::kNone, Scores::kNone, Scores::kNone);
      }
    }
    float top[16];
#pragma unroll
    for (int k = 0; k < 16; ++k) {
      const uint4& of = words[k / kBlocks];
      const auto weight = [&](uint32_t bits, int e) {
        return fmaf(Scores::of_block(bits, k % kBlocks), x.scale_log2, -lse[e]);
      };
      top[k] =
          fmaxf(fmaxf(weight(of.x, 0), weight(of.y, 1)), fmaxf(weight(of.z, 2), weight(of.w, 3)));
    }
    reduce_half<8>(top);
    reduce_half<4>(top);
    reduce_half<2>(top);
    reduce_half<1>(top);
    const int piece = first + i / kBlocks * 2 + half, block = piece * kBlocks + i % kBlocks;
    if (piece < num_pieces && block < num_blocks) {
      const float largest = top[0] > -INFINITY ? fmaxf(top[0], kSmallestBlockWeight) : top[0];
      put_weight(row + block, block * kRow < nan_end ? nan_weight() : ptx::exp2_approx(largest),
                 is_shared);
    }
  }
}

}  // namespace seer::kernels::pooled_sm90
