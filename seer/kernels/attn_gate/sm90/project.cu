// Projection of pooled features to gate vectors, then RoPE. A thread block takes one tile after
// another, of 64 blocks and 64 columns of one head: 32 features and the 32 that rotate with them, or
// 64 that do not rotate. There are two for each multiprocessor and no more: they run beside the
// pooling of queries (attn_gate_vectors), which needs registers for its loads.

#include <algorithm>

#include "seer/kernels/alignment.h"
#include "seer/kernels/attn_gate/gpu.h"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/device/gemm_f32_sm90.cuh"
#include "seer/kernels/tensor_map.h"

namespace seer::kernels {
namespace {

// The product is transposed, weight^T x^T: what b is has its depth along memory.
template <int kStages>
using Product = device::GemmF32Sm90<device::Along::side, kStages>;

constexpr int kTile = Product<2>::kTile, kThreads = Product<2>::kThreads;
constexpr int kBlocks = 2;  // on a multiprocessor
// As if there were four: 128 registers a thread leave half of them to the pooling.
constexpr int kRegistersForBlocks = 4;

// Where a tile lies. The tiles of a head come one after another, and those of its blocks first:
// they read the same weights.
struct Place {
  int row, head, first, second;  // features
  bool rotates;

  __device__ __forceinline__ Place(const GateProjectParams& p, unsigned tile) {
    const int half = p.cos ? p.rope_half : 0;
    const auto rows = static_cast<unsigned>((p.num_blocks + kTile - 1) / kTile);
    const unsigned columns = p.out_dim / kTile;
    row = static_cast<int>(tile % rows) * kTile;
    head = static_cast<int>(tile / rows / columns);
    const int column = static_cast<int>(tile / rows % columns);
    rotates = column < half / 32;
    first = rotates ? 32 * column : 2 * half + 64 * (column - half / 32);
    second = rotates ? half + first : first + 32;
  }
};

template <int kStages>
__global__ void __launch_bounds__(kThreads, kRegistersForBlocks)
    project(const __grid_constant__ GateProjectParams p, const __grid_constant__ CUtensorMap weight,
            const __grid_constant__ CUtensorMap x, unsigned tiles) {
  extern __shared__ __align__(1024) uint8_t memory[];
  if (threadIdx.x == 0) {
    ptx::prefetch_tensor_map(&weight);
    ptx::prefetch_tensor_map(&x);
  }
  ptx::start_dependents();
  ptx::wait_for_previous_kernel();
  const int count = static_cast<int>((tiles - blockIdx.x + gridDim.x - 1) / gridDim.x);
  const int heads_together = p.num_out_heads / p.num_in_heads;
  const auto place_of = [&](int n) { return Place(p, blockIdx.x + n * gridDim.x); };
  const auto operands = [&](int n) {
    const Place at = place_of(n);
    return device::TensorOperands{{at.head, at.first, at.second},
                                  {at.head / heads_together, at.row}};
  };
  const int d = p.out_dim, half = p.rope_half;
  const int64_t y_row = int64_t{p.num_out_heads} * d;

  Product<kStages> product(*reinterpret_cast<typename Product<kStages>::Smem*>(memory), weight, x,
                           p.in_dim, count, operands);
  for (int n = 0; n < count; ++n) {
    product.multiply(operands);
    const Place at = place_of(n);
    // This thread's blocks are row + 8 i and row + 8 i + 1, `left` and fewer.
    const int feature = product.first_row();
    const int64_t row = at.row + product.first_column();
    const auto left = static_cast<int>(min(p.num_blocks - row, int64_t{kTile}));
    if (at.rotates) {
      // All angles first: they travel together.
      constexpr int kCount = kTile / 4;
      float cos[kCount], sin[kCount];
      const int64_t angle = row * half + at.first + feature;
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        const int block = i / 2 * 8 + i % 2;
        cos[i] = block < left ? p.cos[angle + block * half] : 0;
        sin[i] = block < left ? p.sin[angle + block * half] : 0;
      }
      product.for_each_two([&](int i, float* a, float* b) {
#pragma unroll
        for (int next = 0; next < 2; ++next) {
          const float c = cos[2 * i + next], s = sin[2 * i + next], first = a[next];
          a[next] = first * c - b[next] * s;
          b[next] = b[next] * c + first * s;
        }
      });
    }
    float* y = p.y + row * y_row + int64_t{at.head} * d + feature;
    product.for_each_two([&](int i, const float* a, const float* b) {
#pragma unroll
      for (int next = 0; next < 2; ++next) {
        if (8 * i + next < left) {
          y[next * y_row + at.first] = a[next];
          y[next * y_row + at.second] = b[next];
        }
      }
      y += 8 * y_row;
    });
  }
}

template <int kStages>
void run(const GateProjectParams& p, const CUtensorMap& weight, const CUtensorMap& x,
         unsigned tiles, void* stream) {
  const unsigned grid = std::min(tiles, static_cast<unsigned>(kBlocks * num_multiprocessors()));
  split_memory(project<kStages>, kSharedMemoryPercent);
  launch_dependent(project<kStages>, grid, kThreads, sizeof(typename Product<kStages>::Smem),
                   stream, p, weight, x, tiles);
}

}  // namespace

std::string why_not_attn_gate_project_sm90(const GateProjectParams& p) {
  if (!p.weight) return "a gate without a weight has nothing to multiply";
  const int half = p.cos ? p.rope_half : 0;
  if (p.in_dim % 4 != 0) return message("in_dim is ", p.in_dim, ", want a multiple of 4");
  if (half % 32 != 0) return message("rope_half is ", half, ", want a multiple of 32");
  if (p.out_dim % kTile != 0) {
    return message("out_dim is ", p.out_dim, ", want a multiple of ", kTile);
  }
  if (!are_aligned(p.x, p.weight)) return "x and weight want addresses at multiples of 16";
  return "";
}

void attn_gate_project_sm90(const GateProjectParams& p, void* stream) {
  if (p.num_blocks == 0) return;
  const int64_t tiles = (p.num_blocks + kTile - 1) / kTile * (p.out_dim / kTile) * p.num_out_heads;
  SEER_CHECK(tiles <= INT32_MAX, "attn_gate_project: ", p.num_blocks, " blocks of ",
             p.num_out_heads, " heads are too many for one call; give fewer sequences");
  const CUtensorMap weight =
      tensor_map({p.weight, p.out_dim, int64_t{p.in_dim} * p.out_dim}, p.in_dim, p.num_out_heads,
                 p.out_dim, DType::f32, Product<2>::kStep);
  const CUtensorMap x = tensor_map({p.x, int64_t{p.num_in_heads} * p.in_dim, p.in_dim},
                                   p.num_blocks, p.num_in_heads, p.in_dim, DType::f32);
  // A third stage hides more of a step's latency; where thread blocks take several tiles, the
  // memory that it takes from the pooling costs more.
  const auto run_tiles = tiles > kBlocks * num_multiprocessors() ? run<2> : run<3>;
  run_tiles(p, weight, x, static_cast<unsigned>(tiles), stream);
}

}  // namespace seer::kernels
