#pragma once
// The map of 64 queries from their scores' maxima, by 128 threads.
//
// maxima [steps][64]: the largest score of each query in each step's keys, before the scale; a key
// block is `steps_per_block` steps (1, 2 or 4). lse [64], in shared memory: log-sum-exp in units of
// log2, +inf for queries that do not count, NaN where a score is NaN: such a query makes every block
// that it sees NaN. Maxima ignore NaN, so what it sees follows from its position.

#include <cmath>

#include "seer/kernels/attention/tile_order.h"
#include "seer/kernels/device/ptx_sm80.cuh"
#include "seer/kernels/pooled_attn/params.h"

namespace seer::kernels {

constexpr int kMapQueries = 64;

struct BlockMaxima {
  const float* maxima;
  const float* lse;
  int num_steps, steps_per_block;
  float scale_log2;
  int limit, k_len;  // query i sees keys up to limit + i, of k_len; counted from the first step's
  int step_keys;     // keys of a step
  float smallest = -INFINITY;  // weight of a block of which a query sees something, in log2

  __device__ __forceinline__ int keys_seen(int query) const {
    return min(limit + query + 1, k_len);
  }
};

// The map row of query i of a tile.
__device__ __forceinline__ float* map_row_of(const PooledAttnParams& p, const DenseTile& tile,
                                             int i) {
  const int64_t map_head = tile.head / (p.num_q_heads / p.num_map_heads);
  const int64_t row = p.cu_rows[tile.seq] + (tile.q_begin - p.cu_q[tile.seq] + i) / p.block_q;
  return p.map + (map_head * p.num_rows + row) * p.num_blocks;
}

// The largest int: it stays where several threads put their weights.
__device__ __forceinline__ float nan_weight() {
  return __int_as_float(0x7fffffff);
}

// Weights are not negative, so their bits are ordered as they are, and the larger of two does not
// depend on the order of threads.
__device__ __forceinline__ void put_weight(float* to, float weight, bool is_shared) {
  if (is_shared) {
    atomicMax(reinterpret_cast<int*>(to), __float_as_int(weight));
  } else {
    *to = weight;
  }
}

// One step of a butterfly: lanes kLanes apart reduce 2 kLanes numbers; the lower one goes on with the
// first half of the maxima, the upper one with the second.
template <int kLanes>
__device__ __forceinline__ void reduce_half(float (&x)[16]) {
  const bool is_upper = threadIdx.x & kLanes;
#pragma unroll
  for (int k = 0; k < kLanes; ++k) {
    const float other = __shfl_xor_sync(0xffffffff, is_upper ? x[k] : x[k + kLanes], kLanes);
    x[k] = fmaxf(is_upper ? x[k + kLanes] : x[k], other);
  }
}

// One map row for all queries. A warp takes 32 steps at a time: 16 lanes hold the queries of a step,
// four each, and reduce until each lane has a step of its own.
__device__ __forceinline__ void write_row(const BlockMaxima& x, float* row, int64_t num_blocks,
                                          bool is_shared) {
  const int lane = threadIdx.x % 32, i = lane % 16, half = lane / 16;
  float4 lse = reinterpret_cast<const float4*>(x.lse)[i];
  int nan_end = 0;  // blocks that begin before this key are NaN
  if (__any_sync(0xffffffff, isnan(lse.x + lse.y + lse.z + lse.w))) {
    const auto leave_out = [&](float& of_query, int query) {
      if (!isnan(of_query)) return;
      nan_end = max(nan_end, x.keys_seen(query));
      of_query = INFINITY;
    };
    leave_out(lse.x, 4 * i);
    leave_out(lse.y, 4 * i + 1);
    leave_out(lse.z, 4 * i + 2);
    leave_out(lse.w, 4 * i + 3);
    nan_end = __reduce_max_sync(0xffffffff, nan_end);
  }
  for (int first = threadIdx.x / 32 % 4 * 32; first < x.num_steps; first += 128) {
    float4 m[16];
#pragma unroll
    for (int k = 0; k < 16; ++k) {
      const int step = first + 2 * k + half;
      m[k] = make_float4(-INFINITY, -INFINITY, -INFINITY, -INFINITY);
      if (step < x.num_steps) {
        m[k] = reinterpret_cast<const float4*>(x.maxima + int64_t{step} * kMapQueries)[i];
      }
    }
    float top[16];
#pragma unroll
    for (int k = 0; k < 16; ++k) {
      top[k] = fmaxf(fmaxf(fmaf(m[k].x, x.scale_log2, -lse.x), fmaf(m[k].y, x.scale_log2, -lse.y)),
                     fmaxf(fmaf(m[k].z, x.scale_log2, -lse.z), fmaf(m[k].w, x.scale_log2, -lse.w)));
    }
    reduce_half<8>(top);
    reduce_half<4>(top);
    reduce_half<2>(top);
    reduce_half<1>(top);
    const int step = first + 2 * i + half;
    float largest = top[0];
    if (x.steps_per_block > 1) {
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, 16));
    }
    if (x.steps_per_block > 2) {
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffff, largest, 1));
    }
    const int block = step / x.steps_per_block;
    if (step < x.num_steps && step % x.steps_per_block == 0 && block < num_blocks) {
      const bool is_nan = step * x.step_keys < nan_end;
      if (largest > -INFINITY) largest = fmaxf(largest, x.smallest);
      put_weight(row + block, is_nan ? nan_weight() : ptx::exp2_approx(largest), is_shared);
    }
  }
}

// A map row for each of the first num_queries queries, one after another from `rows` on.
__device__ __forceinline__ void write_rows_of_tokens(const BlockMaxima& x, float* rows,
                                                     int64_t num_blocks, int num_queries,
                                                     bool is_shared) {
  const int lane = threadIdx.x % 32, query0 = threadIdx.x / 32 % 4 * 16;
  const int num = (x.num_steps + x.steps_per_block - 1) / x.steps_per_block;
  for (int64_t block = lane; block < num && block < num_blocks; block += 32) {
    float top[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) top[i] = -INFINITY;
    for (int part = 0; part < x.steps_per_block; ++part) {
      const int64_t step = block * x.steps_per_block + part;
      if (step >= x.num_steps) break;
      const auto* m = reinterpret_cast<const float4*>(x.maxima + step * kMapQueries + query0);
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        top[4 * i] = fmaxf(top[4 * i], m[i].x);
        top[4 * i + 1] = fmaxf(top[4 * i + 1], m[i].y);
        top[4 * i + 2] = fmaxf(top[4 * i + 2], m[i].z);
        top[4 * i + 3] = fmaxf(top[4 * i + 3], m[i].w);
      }
    }
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (query0 + i >= num_queries) break;
      const float lse = x.lse[query0 + i];
      float weight = ptx::exp2_approx(fmaf(top[i], x.scale_log2, -lse));
      if (isnan(lse)) {
        const int64_t key = block * x.steps_per_block * x.step_keys;
        weight = key < x.keys_seen(query0 + i) ? nan_weight() : 0.f;
      }
      put_weight(rows + (query0 + i) * num_blocks + block, weight, is_shared);
    }
  }
}

}  // namespace seer::kernels
