// Scores of key blocks from gate vectors, and their gradients: causal products, a tile of 64 by 64
// for a thread block. Tiles that nothing sees cost no arithmetic.

#include <type_traits>

#include "seer/kernels/alignment.h"
#include "seer/kernels/attn_gate/gpu.h"
#include "seer/kernels/attn_gate/score_tile.cuh"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/device/gemm_f32.cuh"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels {
namespace {

using device::Along;
using device::GemmF32;
using device::Operand;

constexpr int kTile = GemmF32::kTile;

unsigned tiles_of(int64_t n) {
  return static_cast<unsigned>((n + kTile - 1) / kTile);
}

// kInPlace: gate vectors are read as they lie in memory.
template <bool kInPlace>
__global__ void __launch_bounds__(GemmF32::kThreads, kInPlace ? GemmF32::kBlocksOfOperands
                                                              : GemmF32::kBlocksOfFunctions)
    score(const __grid_constant__ GateScoreParams p) {
  __shared__ std::conditional_t<kInPlace, GemmF32::SmemOfTwo, GemmF32::Smem> smem;
  __shared__ int visible[kTile];
  ptx::start_dependents();
  const TileSlot slot = tile_slot(p.cu_rows, p.num_seqs, kTile, blockIdx.y);
  if (slot.begin >= slot.end) return;
  const Sequence s(p, slot.sequence);
  const int row0 = static_cast<int>(slot.begin), rows = static_cast<int>(slot.end) - row0;
  const int64_t n0 = int64_t{blockIdx.x} * kTile;
  const int h = blockIdx.z, d = p.gate_dim;

  const int64_t first = (h * p.num_rows + s.row0 + row0) * p.num_blocks + n0;
  float* out = p.scores + first;  // of the tile; 32 bits do within it
  const int stride = static_cast<int>(p.num_blocks);
  const int columns = static_cast<int>(min(int64_t{kTile}, p.num_blocks - n0));
  // Blocks of this tile that a row sees.
  if (threadIdx.x < rows) {
    visible[threadIdx.x] = static_cast<int>(s.visible(row0 + threadIdx.x) - n0);
  }
  __syncthreads();
  if (visible[rows - 1] <= 0)
    return hide<kTile, GemmF32::kThreads>(out, stride, rows, columns);  // later rows see more

  GemmF32 product;
  const int gate_head = static_cast<int>(int64_t{h} * p.num_gate_heads / p.num_q_heads);
  const int keys = min(kTile, visible[rows - 1]);
  const int q_row = p.num_q_heads * d, k_row = p.num_gate_heads * d;
  const float* q = p.q_gate + (s.row0 + row0) * q_row + int64_t{h} * d;
  const float* k = p.k_gate + (s.block0 + n0) * k_row + int64_t{gate_head} * d;
  if constexpr (kInPlace) {
    product.accumulate<Along::depth, Along::depth>(smem, d,
                                                   Operand{{q, q + 32 * q_row}, q_row, rows},
                                                   Operand{{k, k + 32 * k_row}, k_row, keys});
  } else {
    product.accumulate<Along::depth, Along::depth>(
        smem, d, [&](int row, int i) { return row < rows ? q[row * q_row + i] : 0.0f; },
        [&](int n, int i) { return n < keys ? k[n * k_row + i] : 0.0f; });
  }

  const bool by_two = stride % 2 == 0;
  product.for_each_pair([&](int row, int column, float x, float y) {
    if (row >= rows || column >= columns) return;
    const int seen = visible[row];
    x = column < seen ? p.scale * x : -INFINITY;
    y = column + 1 < seen ? p.scale * y : -INFINITY;
    float* at = out + (row * stride + column);
    if (by_two) {
      *reinterpret_cast<float2*>(at) = make_float2(x, y);
    } else {
      at[0] = x;
      if (column + 1 < columns) at[1] = y;
    }
  });
}

// Writes scale * c to rows 0 .. rows - 1 (`stride` apart) and features column0 ... of `out`.
__device__ __forceinline__ void store(const GemmF32& product, float scale, float* out,
                                      int64_t stride, int rows, int column0, int d) {
  product.for_each_pair([&](int row, int column, float x, float y) {
    column += column0;
    if (row >= rows) return;
    if (column < d) out[row * stride + column] = scale * x;
    if (column + 1 < d) out[row * stride + column + 1] = scale * y;
  });
}

__global__ void __launch_bounds__(GemmF32::kThreads, GemmF32::kBlocksOfFunctions)
    score_grad_q(const __grid_constant__ GateScoreGradParams g) {
  const GateScoreParams& p = g.forward;
  __shared__ GemmF32::Smem smem;
  __shared__ int visible[kTile];
  const TileSlot slot = tile_slot(p.cu_rows, p.num_seqs, kTile, blockIdx.y);
  if (slot.begin >= slot.end) return;
  const Sequence s(p, slot.sequence);
  const int row0 = static_cast<int>(slot.begin), rows = static_cast<int>(slot.end) - row0;
  const int column0 = blockIdx.x * kTile, h = blockIdx.z, d = p.gate_dim;
  const int gate_head = static_cast<int>(int64_t{h} * p.num_gate_heads / p.num_q_heads);
  const int64_t q_row = int64_t{p.num_q_heads} * d, k_row = int64_t{p.num_gate_heads} * d;
  const float* dscores = g.dscores + (h * p.num_rows + s.row0 + row0) * p.num_blocks;
  const float* k = p.k_gate + s.block0 * k_row + int64_t{gate_head} * d;

  if (threadIdx.x < kTile) {
    visible[threadIdx.x] = threadIdx.x < rows ? s.visible(row0 + threadIdx.x) : 0;
  }
  __syncthreads();

  GemmF32 product;
  product.accumulate<Along::depth, Along::side>(
      smem, visible[rows - 1],
      [&](int row, int n) { return n < visible[row] ? dscores[row * p.num_blocks + n] : 0.0f; },
      [&](int column, int n) {
        return column0 + column < d ? k[n * k_row + column0 + column] : 0.0f;
      });
  store(product, p.scale, g.dq_gate + (s.row0 + row0) * q_row + int64_t{h} * d, q_row, rows,
        column0, d);
}

// The query heads that share a gate head are summed one after another.
__global__ void __launch_bounds__(GemmF32::kThreads, GemmF32::kBlocksOfFunctions)
    score_grad_k(const __grid_constant__ GateScoreGradParams g) {
  const GateScoreParams& p = g.forward;
  __shared__ GemmF32::Smem smem;
  __shared__ int first_row[kTile];  // from `first` on
  const TileSlot slot = tile_slot(p.cu_blocks, p.num_seqs, kTile, blockIdx.y);
  if (slot.begin >= slot.end) return;
  const Sequence s(p, slot.sequence);
  const int n0 = static_cast<int>(slot.begin), keys = static_cast<int>(slot.end) - n0;
  const int column0 = blockIdx.x * kTile, gate_head = blockIdx.z, d = p.gate_dim;
  const int group = p.num_q_heads / p.num_gate_heads;
  const int64_t q_row = int64_t{p.num_q_heads} * d, k_row = int64_t{p.num_gate_heads} * d;
  const int first = s.first_row(n0);
  if (threadIdx.x < kTile) {
    first_row[threadIdx.x] = threadIdx.x < keys ? s.first_row(n0 + threadIdx.x) - first : s.rows;
  }
  __syncthreads();

  GemmF32 product;
  for (int h = gate_head * group; h < (gate_head + 1) * group; ++h) {
    const float* dscores = g.dscores + (h * p.num_rows + s.row0 + first) * p.num_blocks + n0;
    const float* q = p.q_gate + (s.row0 + first) * q_row + int64_t{h} * d;
    product.accumulate<Along::side, Along::side>(
        smem, s.rows - first,
        [&](int n, int row) {
          return row >= first_row[n] ? dscores[row * p.num_blocks + n] : 0.0f;
        },
        [&](int column, int row) {
          return column0 + column < d ? q[row * q_row + column0 + column] : 0.0f;
        });
  }
  store(product, p.scale, g.dk_gate + (s.block0 + n0) * k_row + int64_t{gate_head} * d, k_row, keys,
        column0, d);
}

// Slots of tiles of a sequence's rows or blocks; they are the grid's second axis.
unsigned slots_of(int64_t entries, int num_seqs) {
  const int64_t slots = num_tile_slots(entries, num_seqs, kTile);
  SEER_CHECK(slots <= 65535, "attn_gate_score: ", entries, " blocks in ", num_seqs,
             " sequences are too many for one call; give fewer sequences");
  return static_cast<unsigned>(slots);
}

}  // namespace

void attn_gate_score_sm80(const GateScoreParams& p, void* stream) {
  if (p.num_rows == 0 || p.num_blocks == 0) return;
  const dim3 grid(tiles_of(p.num_blocks), slots_of(p.num_rows, p.num_seqs),
                  static_cast<unsigned>(p.num_q_heads));
  const bool in_place = p.gate_dim % 4 == 0 && are_aligned(p.q_gate, p.k_gate);
  launch(in_place ? score<true> : score<false>, grid, GemmF32::kThreads, 0, stream, p);
}

void attn_gate_score_grad_sm80(const GateScoreGradParams& g, void* stream) {
  const GateScoreParams& p = g.forward;
  const unsigned columns = tiles_of(p.gate_dim);
  if (g.dq_gate && p.num_rows > 0) {
    const dim3 grid(columns, slots_of(p.num_rows, p.num_seqs),
                    static_cast<unsigned>(p.num_q_heads));
    launch(score_grad_q, grid, GemmF32::kThreads, 0, stream, g);
  }
  if (p.total_blocks > 0) {
    const dim3 grid(columns, slots_of(p.total_blocks, p.num_seqs),
                    static_cast<unsigned>(p.num_gate_heads));
    launch(score_grad_k, grid, GemmF32::kThreads, 0, stream, g);
  }
}

}  // namespace seer::kernels
