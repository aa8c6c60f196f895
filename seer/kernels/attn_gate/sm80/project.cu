// Projection of pooled features to gate vectors, then RoPE; and the gradient of the weights. A
// thread block has 64 blocks (or features) and 64 columns of one head.

#include "seer/kernels/alignment.h"
#include "seer/kernels/attn_gate/gpu.h"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/device/gemm_f32.cuh"

namespace seer::kernels {
namespace {

using device::Along;
using device::GemmF32;
using device::Operand;

constexpr int kTile = GemmF32::kTile;
constexpr int kRotateThreads = 256;

unsigned tiles_of(int64_t n) {
  return static_cast<unsigned>((n + kTile - 1) / kTile);
}

// Columns in the order in which a thread takes them: the two features that rotate together are
// neighbours, 0, half, 1, half + 1 ..., then those that do not rotate.
__device__ __forceinline__ int feature_of(int column, int half) {
  return column < 2 * half ? column / 2 + column % 2 * half : column;
}

__global__ void __launch_bounds__(GemmF32::kThreads, GemmF32::kBlocksOfFunctions)
    project(const __grid_constant__ GateProjectParams p) {
  ptx::start_dependents();
  __shared__ GemmF32::Smem smem;
  const int64_t r0 = int64_t{blockIdx.x} * kTile;
  const int column0 = blockIdx.y * kTile, h = blockIdx.z;
  const int F = p.in_dim, d = p.out_dim, half = p.cos ? p.rope_half : 0;
  const int in_head = static_cast<int>(int64_t{h} * p.num_in_heads / p.num_out_heads);
  const int rows = static_cast<int>(min(int64_t{kTile}, p.num_blocks - r0));
  const int x_row = p.num_in_heads * F;  // of the 64 rows: 32 bits do
  const float* x = p.x + r0 * x_row + int64_t{in_head} * F;
  const float* weight = p.weight + int64_t{h} * F * d;

  GemmF32 product;
  product.accumulate<Along::depth, Along::side>(
      smem, F, [&](int row, int f) { return row < rows ? x[row * x_row + f] : 0.0f; },
      [&](int column, int f) {
        column += column0;
        return column < d ? weight[f * d + feature_of(column, half)] : 0.0f;
      });

  product.for_each_pair([&](int row, int column, float a, float b) {
    if (row >= rows) return;
    column += column0;
    const int64_t r = r0 + row;
    float* y = p.y + (r * p.num_out_heads + h) * d;
    if (column < 2 * half) {
      const int k = column / 2;
      const float cos = p.cos[r * half + k], sin = p.sin[r * half + k];
      y[k] = a * cos - b * sin;
      y[k + half] = b * cos + a * sin;
    } else {
      if (column < d) y[column] = a;
      if (column + 1 < d) y[column + 1] = b;
    }
  });
}

// The same where features and weights are read as they lie in memory: a tile of columns is 32 features
// and the 32 that rotate with them, or 64 that do not rotate.
__global__ void __launch_bounds__(GemmF32::kThreads, GemmF32::kBlocksOfOperands)
    project_in_place(const __grid_constant__ GateProjectParams p) {
  ptx::start_dependents();
  __shared__ GemmF32::SmemOfTwo smem;
  const int64_t r0 = int64_t{blockIdx.x} * kTile;
  const int h = blockIdx.z, tile = blockIdx.y;
  const int F = p.in_dim, d = p.out_dim, half = p.cos ? p.rope_half : 0;
  const bool rotates = tile < half / 32;
  const int first = rotates ? 32 * tile : 2 * half + 64 * (tile - half / 32);  // feature
  const int second = rotates ? half + first : first + 32;
  const int in_head = static_cast<int>(int64_t{h} * p.num_in_heads / p.num_out_heads);
  const int rows = static_cast<int>(min(int64_t{kTile}, p.num_blocks - r0));
  const int x_row = p.num_in_heads * F;
  const float* x = p.x + r0 * x_row + int64_t{in_head} * F;
  const float* weight = p.weight + int64_t{h} * F * d;

  GemmF32 product;
  product.accumulate<Along::depth, Along::side>(
      smem, F, Operand{{x, x + 32 * x_row}, x_row, rows},
      Operand{{weight + first, weight + second}, d, kTile});

  product.for_each_two([&](int row, int column, const float* a, const float* b) {
    if (row >= rows) return;
    const int64_t r = r0 + row;
    float* y = p.y + (r * p.num_out_heads + h) * d + column;
    float2 u = make_float2(a[0], a[1]), v = make_float2(b[0], b[1]);
    if (rotates) {
      const int64_t angle = r * half + first + column;
      const float2 cos = *reinterpret_cast<const float2*>(p.cos + angle);
      const float2 sin = *reinterpret_cast<const float2*>(p.sin + angle);
      v = make_float2(b[0] * cos.x + a[0] * sin.x, b[1] * cos.y + a[1] * sin.y);
      u = make_float2(a[0] * cos.x - b[0] * sin.x, a[1] * cos.y - b[1] * sin.y);
    }
    *reinterpret_cast<float2*>(y + first) = u;
    *reinterpret_cast<float2*>(y + second) = v;
  });
}

// Without a weight: a thread rotates kCount neighbouring features and those that they rotate with, or
// copies kCount that do not rotate.
template <int kCount>
__global__ void __launch_bounds__(kRotateThreads)
    rotate(const __grid_constant__ GateProjectParams p, unsigned items_of_row, unsigned items) {
  struct alignas(sizeof(float) * kCount) Vector {
    float at[kCount];
  };
  ptx::wait_for_previous_kernel();
  const unsigned item = blockIdx.x * kRotateThreads + threadIdx.x;
  if (item >= items) return;
  const unsigned at = item / items_of_row;  // block and head
  const int half = p.cos ? p.rope_half : 0, i = item % items_of_row * kCount;
  const float* x = p.x + int64_t{at} * p.in_dim;
  float* y = p.y + int64_t{at} * p.out_dim;
  const auto load = [](const float* from) { return *reinterpret_cast<const Vector*>(from); };
  const auto store = [](float* to, const Vector& v) { *reinterpret_cast<Vector*>(to) = v; };
  if (i >= half) return store(y + half + i, load(x + half + i));
  const int64_t angle = int64_t{at / p.num_out_heads} * half + i;
  const Vector cos = load(p.cos + angle), sin = load(p.sin + angle);
  Vector a = load(x + i), b = load(x + half + i);
#pragma unroll
  for (int j = 0; j < kCount; ++j) {
    const float first = a.at[j] * cos.at[j] - b.at[j] * sin.at[j];
    b.at[j] = b.at[j] * cos.at[j] + a.at[j] * sin.at[j];
    a.at[j] = first;
  }
  store(y + i, a);
  store(y + half + i, b);
}

template <int kCount>
void run_turn(const GateProjectParams& p, void* stream) {
  const int half = p.cos ? p.rope_half : 0;
  const auto items_of_row = static_cast<unsigned>((p.out_dim - half) / kCount);
  const int64_t items = p.num_blocks * p.num_out_heads * items_of_row;
  SEER_CHECK(items <= INT32_MAX, "attn_gate_project: ", p.num_blocks, " blocks of ",
             p.num_out_heads, " heads are too many for one call; give fewer sequences");
  const dim3 grid(static_cast<unsigned>((items + kRotateThreads - 1) / kRotateThreads));
  launch_dependent(rotate<kCount>, grid, kRotateThreads, 0, stream, p, items_of_row,
                   static_cast<unsigned>(items));
}

__global__ void __launch_bounds__(GemmF32::kThreads, GemmF32::kBlocksOfFunctions)
    project_grad(const __grid_constant__ GateProjectGradParams p) {
  __shared__ GemmF32::Smem smem;
  const int f0 = blockIdx.x * kTile, column0 = blockIdx.y * kTile, h = blockIdx.z;
  const int F = p.in_dim, d = p.out_dim, half = p.cos ? p.rope_half : 0;
  const int in_head = static_cast<int>(int64_t{h} * p.num_in_heads / p.num_out_heads);
  const int64_t x_row = int64_t{p.num_in_heads} * F, y_row = int64_t{p.num_out_heads} * d;
  const float* x = p.x + int64_t{in_head} * F + f0;
  const float* dy = p.dy + int64_t{h} * d;

  GemmF32 product;
  product.accumulate<Along::side, Along::side>(
      smem, static_cast<int>(p.num_blocks),
      [&](int f, int r) { return f0 + f < F ? x[r * x_row + f] : 0.0f; },
      [&](int column, int r) {  // rotated back
        column += column0;
        if (column >= d) return 0.0f;
        const float* row = dy + r * y_row;
        if (column >= 2 * half) return row[column];
        const int k = column < half ? column : column - half;
        const float cos = p.cos[int64_t{r} * half + k], sin = p.sin[int64_t{r} * half + k];
        return column < half ? row[k] * cos + row[k + half] * sin
                             : row[k + half] * cos - row[k] * sin;
      });

  float* dweight = p.dweight + int64_t{h} * F * d;
  product.for_each_pair([&](int row, int column, float x, float y) {
    const int64_t f = f0 + row;
    column += column0;
    if (f >= F) return;
    if (column < d) dweight[f * d + column] += x;
    if (column + 1 < d) dweight[f * d + column + 1] += y;
  });
}

}  // namespace

void attn_gate_project_sm80(const GateProjectParams& p, void* stream) {
  if (p.num_blocks == 0) return;
  const bool aligned = are_aligned(p.x, p.y, p.weight, p.cos, p.sin);
  const int half = p.cos ? p.rope_half : 0;
  if (p.weight) {
    const bool in_place = aligned && p.in_dim % 4 == 0 && half % 32 == 0 && p.out_dim % 4 == 0 &&
                          (p.out_dim - 2 * half) % kTile == 0;
    const dim3 grid(tiles_of(p.num_blocks), tiles_of(p.out_dim),
                    static_cast<unsigned>(p.num_out_heads));
    if (in_place) {
      split_memory(project_in_place, kSharedMemoryPercent);
      return launch(project_in_place, grid, GemmF32::kThreads, 0, stream, p);
    }
    launch(project, grid, GemmF32::kThreads, 0, stream, p);
  } else {
    const bool by_four = aligned && p.out_dim % 4 == 0 && half % 4 == 0;
    by_four ? run_turn<4>(p, stream) : run_turn<1>(p, stream);
  }
}

void attn_gate_project_grad_sm80(const GateProjectGradParams& p, void* stream) {
  if (p.num_blocks == 0) return;
  const dim3 grid(tiles_of(p.in_dim), tiles_of(p.out_dim), static_cast<unsigned>(p.num_out_heads));
  launch(project_grad, grid, GemmF32::kThreads, 0, stream, p);
}

}  // namespace seer::kernels
