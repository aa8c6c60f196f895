#include "seer/kernels/block_sparse_attn/backward/prepare.h"

#include <cmath>

#include "seer/kernels/block_sparse_attn/backward/columns.cuh"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/device/ptx_sm80.cuh"

namespace seer::kernels::backward {
namespace {

using Params = BlockSparseAttnBackwardParams;

constexpr int kStatsWarps = 8;

// One thread block: a row tile of one head; eight lanes a query, 16 bytes each at a time.
template <class Element>
__global__ void __launch_bounds__(kStatsWarps * 32)
    make_stats(const __grid_constant__ Params p, const __grid_constant__ Workspace w) {
  const int tile = blockIdx.x, head = blockIdx.y, lane = threadIdx.x % 8;
  const int tiles_per_row = p.lists.block_q / kTile, row = tile / tiles_per_row;
  const int b = last_begun(p.lists.cu_rows, p.num_seqs, row);
  const int first = static_cast<int>(tile - p.lists.cu_rows[b] * tiles_per_row) * kTile;
  const int q_begin = p.cu_q[b], q_left = p.cu_q[b + 1] - q_begin - first;
  float* const stats = w.stats + (int64_t{head} * w.row_tiles + tile) * 2 * kTile;
  ptx::start_dependents();
  for (int i = threadIdx.x / 8; i < kTile; i += kStatsWarps * 4) {
    float delta = 0.f, lse = INFINITY;
    if (i < q_left) {
      const int64_t token = int64_t{q_begin} + first + i;
      lse = p.lse[head * p.total_q + token] * 1.44269504f;
      // A query that sees no key: weights of exp2(score - inf) = 0.
      if (lse == -INFINITY) lse = INFINITY;
      const auto* o =
          static_cast<const Element*>(p.o.data) + token * p.o.token_stride + head * p.o.head_stride;
      const auto* grad_o = static_cast<const Element*>(p.grad_o.data) +
                           token * p.grad_o.token_stride + head * p.grad_o.head_stride;
      for (int c = lane * 8; c < p.head_dim; c += 64) {
        const uint4 x = __ldcs(reinterpret_cast<const uint4*>(o + c));
        const uint4 y = *reinterpret_cast<const uint4*>(grad_o + c);
        const auto* xs = reinterpret_cast<const Element*>(&x);
        const auto* ys = reinterpret_cast<const Element*>(&y);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          delta = fmaf(static_cast<float>(xs[j]), static_cast<float>(ys[j]), delta);
        }
      }
    }
#pragma unroll
    for (int s = 4; s > 0; s /= 2) delta += __shfl_xor_sync(0xffffffff, delta, s);
    if (lane == 0) {
      stats[i] = lse;
      stats[kTile + i] = i < q_left ? delta : 0.f;
    }
  }
  ptx::wait_for_previous_kernel();
}

constexpr int kChunk = 1024;  // columns that a thread block of transpose_lists() holds

// Bits of 256 row tiles (a warp has 32 of them, one word) and kChunk columns of one list head.
__global__ void __launch_bounds__(256)
    transpose_lists(const __grid_constant__ Params p, const __grid_constant__ Workspace w) {
  __shared__ uint32_t words[8][kChunk];
  ptx::start_dependents();
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, head = blockIdx.y;
  const int64_t first_column = int64_t{blockIdx.z} * kChunk;
  for (int i = lane; i < kChunk; i += 32) words[warp][i] = 0;
  __syncwarp();
  const int64_t row0 = blockIdx.x * 256 + warp * 32;
  unsigned long long steps = 0;
  for (int r = 0; r < 32 && row0 + r < w.row_tiles; ++r) {
    const int row = static_cast<int>(row0 + r) / (p.lists.block_q / kTile);
    const int b = last_begun(p.lists.cu_rows, p.num_seqs, row);
    const int64_t base = p.cu_k[b] / p.lists.block_k + b - first_column;
    const int64_t at = int64_t{head} * p.lists.num_rows + row;
    const int32_t* list = p.lists.list + p.lists.begin[at];
    const int count = p.lists.count[at];
    steps += count;
    for (int i = lane; i < count; i += 32) {
      const int64_t column = base + list[i];
      // The columns of a row differ: no two lanes write the same word.
      if (column >= 0 && column < kChunk) words[warp][column] |= 1u << r;
    }
    __syncwarp();
  }
  if (blockIdx.z == 0 && lane == 0) atomicAdd(&w.counters->total_steps, steps);
  __syncthreads();
  for (int i = threadIdx.x; i < kChunk && first_column + i < w.columns; i += 256) {
    auto* to = reinterpret_cast<uint4*>(w.bits + (head * w.columns + first_column + i) * w.words +
                                        blockIdx.x * 8);
    to[0] = make_uint4(words[0][i], words[1][i], words[2][i], words[3][i]);
    to[1] = make_uint4(words[4][i], words[5][i], words[6][i], words[7][i]);
  }
}

// A warp: the steps of one column tile of one kv head, and its parts where they are many.
__global__ void __launch_bounds__(256)
    plan_columns(const __grid_constant__ Params p, const __grid_constant__ Workspace w) {
  ptx::wait_for_previous_kernel();
  const int64_t column = (int64_t{blockIdx.x} * 256 + threadIdx.x) / 32;
  const int lane = threadIdx.x % 32;
  if (column >= p.num_kv_heads * w.column_tiles) return;
  const ColumnTile tile = describe_column(p, w, column);
  int steps = 0;
  if (tile.k_left > 0) {
    for (int h = 0; h < tile.num_heads; ++h) {
      const uint32_t* bits = tile.bits(p, w, h);
      for (int i = tile.first_row / 32 + lane; i * 32 < tile.last_row; i += 32) {
        steps += __popc(bits[i] & tile.rows_of_word(i));
      }
    }
    for (int s = 16; s > 0; s /= 2) steps += __shfl_xor_sync(0xffffffff, steps, s);
  }
  if (lane != 0) return;
  w.steps[column] = steps;
  const int most = most_steps(p, w);
  if (steps <= most) return;
  const int count = (steps + most - 1) / most;
  const int first = atomicAdd(&w.counters->num_parts, count);
  w.splits[atomicAdd(&w.counters->num_splits, 1)] = {static_cast<int32_t>(column), first, count};
  for (int i = 0; i < count; ++i) w.parts[first + i] = {static_cast<int32_t>(column), i, count};
}

// A thread block takes column tiles in turn; parts are added in their order.
template <class Element>
__global__ void __launch_bounds__(256)
    add(const __grid_constant__ Params p, const __grid_constant__ Workspace w) {
  const int num_splits = w.counters->num_splits, quads = p.head_dim / 4;
  for (int s = blockIdx.x; s < num_splits; s += gridDim.x) {
    const Split split = w.splits[s];
    const ColumnTile tile = describe_column(p, w, split.column);
    const int size = kTile * p.head_dim;
    const int keys = min(tile.k_left, kTile);
    for (int i = threadIdx.x; i < 2 * keys * quads; i += 256) {
      const int which = i / (keys * quads), key = i / quads % keys, d = i % quads * 4;
      const float* from =
          w.partials + (int64_t{split.first_part} * 2 + which) * size + key * p.head_dim + d;
      float4 sum = {};
      for (int j = 0; j < split.num_parts; ++j, from += 2 * size) {
        const float4 x = __ldcs(reinterpret_cast<const float4*>(from));
        sum.x += x.x, sum.y += x.y, sum.z += x.z, sum.w += x.w;
      }
      const float factor = which ? 1.f : p.scale;
      const StridedOut& to = which ? p.grad_v : p.grad_k;
      auto* x = static_cast<Element*>(to.data) + (tile.k_token + key) * to.token_stride +
                tile.kv_head * to.head_stride + d;
      *reinterpret_cast<uint2*>(x) = make_uint2(ptx::pack<Element>(sum.x * factor, sum.y * factor),
                                                ptx::pack<Element>(sum.z * factor, sum.w * factor));
    }
  }
}

}  // namespace

void prepare(const Params& p, const Workspace& w, void* stream) {
  SEER_CUDA_CHECK(
      cudaMemsetAsync(w.counters, 0, sizeof(Counters), static_cast<cudaStream_t>(stream)));
  if (w.row_tiles > 0) {
    // Few thread blocks that wait for memory, and beside them many that use all of its rate.
    launch(transpose_lists, dim3(w.words / 8, p.lists.num_heads, (w.columns + kChunk - 1) / kChunk),
           256, 0, stream, p, w);
    const dim3 rows(w.row_tiles, p.num_q_heads);
    const auto stats = p.dtype == DType::bf16 ? make_stats<__nv_bfloat16> : make_stats<__half>;
    launch_dependent(stats, rows, kStatsWarps * 32, 0, stream, p, w);
  }
  launch_dependent(plan_columns, dim3((p.num_kv_heads * w.column_tiles + 7) / 8), 256, 0, stream, p,
                   w);
}

void add_parts(const Params& p, const Workspace& w, void* stream) {
  const auto kernel = p.dtype == DType::bf16 ? add<__nv_bfloat16> : add<__half>;
  launch(kernel, dim3(4 * num_multiprocessors()), 256, 0, stream, p, w);
}

}  // namespace seer::kernels::backward
