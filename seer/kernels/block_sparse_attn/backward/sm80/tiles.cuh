#pragma once
// What the two kernels of the backward for sm_80 share.

#include "seer/kernels/attention/sm80/attend.cuh"
#include "seer/kernels/block_sparse_attn/backward/columns.cuh"
#include "seer/kernels/cuda_check.h"

namespace seer::kernels::sm80::backward {

using namespace kernels::backward;
using Params = BlockSparseAttnBackwardParams;

using attention::kThreads;  // a warp has 16 rows of the accumulators

// left: the 64 tokens that a thread block is about, [q, grad_o] or [k, v]; right: the tokens of a
// step, [k, v] or [q, grad_o].
template <class Element_, int kHeadDim_>
struct BackwardConfig {
  using Element = Element_;
  static constexpr int kHeadDim = kHeadDim_;
  // Tokens of a step: as many as registers and shared memory leave room for.
  static constexpr int kKeyStep = kHeadDim > 128 ? 32 : 64;
  static constexpr int kQueryStep = kHeadDim > 96 ? 32 : 64;
  // Thread blocks of a multiprocessor.
  static constexpr int kRowBlocks = kHeadDim == 64 ? 3 : kHeadDim > 128 ? 1 : 2;
  static constexpr int kColumnBlocks = kHeadDim > 128 ? 1 : 2;
  // Gradients of keys and values of 256 columns are more than a warp's registers hold: two warps
  // have half of the columns each.
  static constexpr int kHalves = kHeadDim > 128 ? 2 : 1;
  template <int kStep>
  struct Smem {
    device::SmemTile<Element, kTile, kHeadDim> left[2];
    device::SmemTile<Element, kStep, kHeadDim> right[2];
  };
  using RowSmem = Smem<kKeyStep>;
  struct ColumnSmem : Smem<kQueryStep> {
    ColumnTile column;
  };
  static_assert(sizeof(RowSmem) <= 99 * 1024, "sm_86 and sm_89 give a thread block 99 KiB");
};

// Starts the copy of tokens from `token` on, of which `left` exist.
template <class Element, int kN = kThreads, class Tile>
__device__ __forceinline__ void load_rows(const Tile& tile, const StridedIn& x, int64_t token,
                                          int head, int left) {
  device::load_async<kN>(
      tile, static_cast<const Element*>(x.data) + token * x.token_stride + head * x.head_stride,
      x.token_stride, left);
}

// This thread's part of 64 rows, times `factor`; `own`: its first row, `left`: how many exist, `column`:
// the first.
template <class Element, int kTiles>
__device__ __forceinline__ void store_rows(const float (&rC)[kTiles][4], float factor,
                                           const StridedOut& to, int64_t token, int head, int own,
                                           int left, int column) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    if (own + 8 * r >= left) continue;
    Element* const out = static_cast<Element*>(to.data) + (token + own + 8 * r) * to.token_stride +
                         head * to.head_stride + column + threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      *reinterpret_cast<uint32_t*>(out + 8 * n) =
          ptx::pack<Element>(rC[n][2 * r] * factor, rC[n][2 * r + 1] * factor);
    }
  }
}

}  // namespace seer::kernels::sm80::backward
