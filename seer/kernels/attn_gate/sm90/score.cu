// Scores of key blocks from gate vectors: a warpgroup has 64 query blocks and 64 key blocks of one
// head. Tiles that nothing sees cost no arithmetic.

#include <algorithm>

#include "seer/kernels/alignment.h"
#include "seer/kernels/attn_gate/gpu.h"
#include "seer/kernels/attn_gate/score_tile.cuh"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/device/gemm_f32_sm90.cuh"
#include "seer/kernels/tensor_map.h"

namespace seer::kernels {
namespace {

using Product = device::GemmF32Sm90<device::Along::depth, 2>;

constexpr int kTile = Product::kTile;
// Side by side for a thread block; fewer where there are few tiles for each.
constexpr int kMostTiles = 4;

// Where a thread block's tiles lie. In shared memory: the product leaves few registers.
struct Place {
  float* out;         // the first of its scores
  int rows, columns;  // of all tiles, as far as there are
  device::TensorOperands operands;
};

struct Smem {
  Product::Smem product;
  Place place;
  int visible[kTile];  // blocks from the first of the tiles on that a row sees
};

// Writes the product's tile; `tile` counts from the left.
__device__ __forceinline__ void write(Product& product, const Smem& smem, int tile, float scale,
                                      int stride) {
  const Place& place = smem.place;
  const int row = Product::first_row(), column = tile * kTile + Product::first_column();
  const int rows = place.rows, columns = place.columns;
  float* upper = place.out + (row * stride + column);
  float* lower = upper + 8 * stride;
  const bool by_two = stride % 2 == 0;
  if (by_two && rows == kTile && smem.visible[0] >= (tile + 1) * kTile) {  // all see all of it
    product.for_each_two([&](int i, const float* x, const float* y) {
      reinterpret_cast<float2*>(upper)[4 * i] = make_float2(scale * x[0], scale * x[1]);
      reinterpret_cast<float2*>(lower)[4 * i] = make_float2(scale * y[0], scale * y[1]);
    });
    return;
  }
  const auto put = [&](bool exists, int column, int seen, float* to, const float* x) {
    if (!exists || column >= columns) return;
    const float first = column < seen ? scale * x[0] : -INFINITY;
    const float second = column + 1 < seen ? scale * x[1] : -INFINITY;
    if (by_two) {
      *reinterpret_cast<float2*>(to) = make_float2(first, second);
    } else {
      to[0] = first;
      if (column + 1 < columns) to[1] = second;
    }
  };
  const int sees = smem.visible[row], lower_sees = smem.visible[row + 8];
  product.for_each_two([&](int i, const float* x, const float* y) {
    put(row < rows, column + 8 * i, sees, upper + 8 * i, x);
    put(row + 8 < rows, column + 8 * i, lower_sees, lower + 8 * i, y);
  });
}

// A thread block has up to `most` tiles side by side.
__global__ void __launch_bounds__(Product::kThreads, 4)
    score(const __grid_constant__ GateScoreParams p, const __grid_constant__ CUtensorMap q,
          const __grid_constant__ CUtensorMap k, int most) {
  extern __shared__ __align__(1024) uint8_t memory[];
  ptx::start_dependents();
  if (threadIdx.x == 0) {
    ptx::prefetch_tensor_map(&q);
    ptx::prefetch_tensor_map(&k);
  }
  ptx::wait_for_previous_kernel();
  const TileSlot slot = tile_slot(p.cu_rows, p.num_seqs, kTile, blockIdx.y);
  if (slot.begin >= slot.end) return;
  const Sequence s(p, slot.sequence);
  const int row0 = static_cast<int>(slot.begin), rows = static_cast<int>(slot.end) - row0;
  const int n0 = blockIdx.x * most * kTile, h = blockIdx.z;
  const int stride = static_cast<int>(p.num_blocks), columns = min(most * kTile, stride - n0);
  // 32 bits do within the tiles.
  float* out = p.scores + ((h * p.num_rows + s.row0 + row0) * p.num_blocks + n0);

  const int seen = s.visible(row0 + rows - 1) - n0;  // by the last row: the most
  const int tiles = min((max(seen, 0) + kTile - 1) / kTile, most);
  for (int tile = tiles; tile * kTile < columns; ++tile) {
    hide<kTile, Product::kThreads>(out + tile * kTile, stride, rows, columns - tile * kTile);
  }
  if (tiles == 0) return;
  Smem& smem = *reinterpret_cast<Smem*>(memory);
  if (threadIdx.x == 0) {
    // Rows and keys behind the end of the sequence are loaded, too: each makes one row or column
    // of the product, which is not written.
    const int gate_head = h / (p.num_q_heads / p.num_gate_heads);
    smem.place = {
        out,
        rows,
        columns,
        {{h, static_cast<int>(s.row0) + row0}, {gate_head, static_cast<int>(s.block0) + n0}}};
  }
  const auto operands = [&](int tile) {
    device::TensorOperands at = smem.place.operands;
    at.b.first += tile * kTile;
    return at;
  };
  Product product(smem.product, q, k, p.gate_dim, tiles, operands);
  if (threadIdx.x < rows) smem.visible[threadIdx.x] = s.visible(row0 + threadIdx.x) - n0;
  for (int tile = 0; tile < tiles; ++tile) {
    product.multiply(operands);
    write(product, smem, tile, p.scale, stride);
  }
}

}  // namespace

std::string why_not_attn_gate_score_sm90(const GateScoreParams& p) {
  if (p.gate_dim % 4 != 0) return message("gate_dim is ", p.gate_dim, ", want a multiple of 4");
  if (!are_aligned(p.q_gate, p.k_gate)) return "gate vectors want addresses at multiples of 16";
  return "";
}

void attn_gate_score_sm90(const GateScoreParams& p, void* stream) {
  if (p.num_rows == 0 || p.num_blocks == 0) return;
  const int64_t slots = num_tile_slots(p.num_rows, p.num_seqs, kTile);
  SEER_CHECK(slots <= 65535, "attn_gate_score: ", p.num_rows, " blocks in ", p.num_seqs,
             " sequences are too many for one call; give fewer sequences");
  const auto map = [&](const float* x, int64_t rows, int heads) {
    return tensor_map({x, int64_t{heads} * p.gate_dim, p.gate_dim}, rows, heads, p.gate_dim,
                      DType::f32);
  };
  const CUtensorMap q = map(p.q_gate, p.num_rows, p.num_q_heads);
  const CUtensorMap k = map(p.k_gate, p.total_blocks, p.num_gate_heads);
  const int most = static_cast<int>(std::clamp<int64_t>(p.num_blocks / 512, 1, kMostTiles));
  const int columns = most * kTile;
  const dim3 grid(static_cast<unsigned>((p.num_blocks + columns - 1) / columns),
                  static_cast<unsigned>(slots), static_cast<unsigned>(p.num_q_heads));
  split_memory(score, 100);
  launch_dependent(score, grid, Product::kThreads, sizeof(Smem), stream, p, q, k, most);
}

}  // namespace seer::kernels
