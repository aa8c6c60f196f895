#pragma once
// Tiles of scores: what the rows of a sequence see of them.

#include "seer/kernels/attn_gate/params.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels {

// One sequence of a call.
struct Sequence {
  int64_t row0, block0;
  int rows, blocks, len_q, len_k, block;

  __device__ __forceinline__ Sequence(const GateScoreParams& p, int b)
      : row0(p.cu_rows[b]),
        block0(p.cu_blocks[b]),
        rows(p.cu_rows[b + 1] - p.cu_rows[b]),
        blocks(p.cu_blocks[b + 1] - p.cu_blocks[b]),
        len_q(p.cu_q[b + 1] - p.cu_q[b]),
        len_k(p.cu_k[b + 1] - p.cu_k[b]),
        block(p.block) {}

  // Key blocks that some query of the row sees.
  __device__ __forceinline__ int visible(int row) const {
    return static_cast<int>(row_blocks(len_q, len_k, block, row).end);
  }
  // The first row that sees block n; `rows` where none does.
  __device__ __forceinline__ int first_row(int64_t n) const {
    const int64_t query = n * block - (len_k - len_q);  // the first that sees the block
    if (query >= len_q) return rows;
    return query <= 0 ? 0 : static_cast<int>(query / block);
  }
};

// A tile of up to kColumns columns that nothing sees.
template <int kColumns, int kThreads>
__device__ __forceinline__ void hide(float* out, int stride, int rows, int columns) {
  if (stride % 4 == 0) {  // so are columns
    const float4 four = make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
    const int column = threadIdx.x % (kColumns / 4) * 4;
    for (int row = threadIdx.x / (kColumns / 4); row < rows; row += kThreads / (kColumns / 4)) {
      if (column < columns) *reinterpret_cast<float4*>(out + (row * stride + column)) = four;
    }
    return;
  }
  for (int i = threadIdx.x; i < rows * kColumns; i += kThreads) {
    const int row = i / kColumns, column = i % kColumns;
    if (column < columns) out[row * stride + column] = -INFINITY;
  }
}

}  // namespace seer::kernels
