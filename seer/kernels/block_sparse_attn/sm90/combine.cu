// Combines the results of pieces of a list: o = sum_i exp(lse_i - lse) o_i (FlashDecoding).

#include <cmath>

#include "seer/kernels/block_sparse_attn/sm90/config.h"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels::sm90 {
namespace {

constexpr int kWarps = 4;

// A thread block takes one tile of one head, a warp a query at a time.
template <class Element>
__global__ void __launch_bounds__(kWarps * 32)
    combine(const __grid_constant__ BlockSparseAttnParams p) {
  const int number = blockIdx.x, tiles_per_row = p.lists.block_q / kTile;
  const int head = blockIdx.y, lane = threadIdx.x % 32;
  const int b = last_begun(p.lists.cu_rows, p.num_seqs, number / tiles_per_row);
  const int first = (number - p.lists.cu_rows[b] * tiles_per_row) * kTile;
  const QueryTile tile = QueryTile::of(p, head, b, first, kTile);
  for (int i = threadIdx.x / 32; i < tile.num_queries; i += kWarps) {
    const auto row_of = [&](int part) {
      return ((int64_t{part} * p.num_q_heads + head) * tiles_per_head(p) + number) * kTile + i;
    };
    float top = -INFINITY, sum = 0.f;
    for (int part = 0; part < p.num_parts; ++part) top = fmaxf(top, partial_lse(p)[row_of(part)]);
    float2 o[4] = {};  // this lane's pairs of columns: 2 lane + 64 c
    for (int part = 0; part < p.num_parts; ++part) {
      const float lse = partial_lse(p)[row_of(part)];
      const float weight = lse == -INFINITY ? 0.f : expf(lse - top);
      if (weight == 0.f) continue;  // a piece without a key wrote no output
      sum += weight;
      const float* x = p.partials + row_of(part) * p.head_dim;
#pragma unroll
      for (int c = 0; c < 4; ++c) {
        const int column = 2 * lane + 64 * c;
        if (column >= p.head_dim) break;
        const float2 y = __ldcs(reinterpret_cast<const float2*>(x + column));
        o[c].x += weight * y.x;
        o[c].y += weight * y.y;
      }
    }
    const float inverse = attention::inverse_of(sum);
    const int64_t token = int64_t{tile.q_begin} + i;
    auto* gO = static_cast<Element*>(p.o.data) + token * p.o.token_stride + head * p.o.head_stride;
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const int column = 2 * lane + 64 * c;
      if (column >= p.head_dim) break;
      *reinterpret_cast<uint32_t*>(gO + column) =
          ptx::pack<Element>(o[c].x * inverse, o[c].y * inverse);
    }
    if (lane == 0) p.lse[head * p.total_q + token] = top + logf(sum);
  }
}

}  // namespace

void combine_parts(const BlockSparseAttnParams& p, void* stream) {
  const dim3 grid(tiles_per_head(p), p.num_q_heads);
  if (p.dtype == DType::bf16) {
    launch(combine<bf16>, grid, kWarps * 32, 0, stream, p);
  } else {
    launch(combine<f16>, grid, kWarps * 32, 0, stream, p);
  }
}

}  // namespace seer::kernels::sm90
