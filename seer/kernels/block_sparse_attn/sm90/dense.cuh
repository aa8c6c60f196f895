#pragma once
// Lists that name every block that their rows see: then this is dense attention, and the kernel that
// shares tiles of 128 keys between 128 queries (attention/sm90/dense) is faster than one
// that looks at lists.

#include "seer/kernels/attention/sm90/dealer.cuh"
#include "seer/kernels/attention/sm90/dense/producer.cuh"
#include "seer/kernels/attention/sm90/dense/walk.cuh"
#include "seer/kernels/block_sparse_attn/sm90/config.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels::sm90 {

template <class Config>
using DenseConfig = attention::dense::Config<typename Config::Element, Config::kHeadDim, false>;

// Whether list `at` (of row `row`) names all blocks that the row sees.
__device__ __forceinline__ bool is_full(const BlockSparseAttnParams& p, int64_t at, int row) {
  const int count = p.lists.count[at];
  const int64_t begin = p.lists.begin[at];
  const int b = last_begun(p.lists.cu_rows, p.num_seqs, row);
  const int first = (row - p.lists.cu_rows[b]) * p.lists.block_q;
  const int last_key = QueryTile::of(p, 0, b, first, p.lists.block_q).last_key();
  const int blocks = last_key < 0 ? 0 : last_key / p.lists.block_k + 1;
  // Ascending, so that the last entry tells.
  return count >= blocks && (count == 0 || p.lists.list[begin + count - 1] == count - 1);
}

// Samples some of the longest lists, by one warp: cheap, and usually decisive. Calls of few rows are
// not worth it.
template <class Config>
__device__ __forceinline__ bool may_be_dense(const BlockSparseAttnParams& p) {
  const int64_t rows = p.lists.num_rows;
  if (!Config::kCanBeDense || p.num_parts > 1 ||
      rows * p.num_q_heads < int64_t{gridDim.x} * Config::kConsumers) {
    return false;
  }
  const int lane = threadIdx.x % 32;
  const int row = static_cast<int>(rows - 1 - rows / 2 * lane / 32);
  const int64_t at = lane % p.lists.num_heads * rows + row;
  // Without waiting for more than the count; in a batch a row says nothing of its length.
  const int64_t least = p.num_seqs == 1 && p.lists.block_q == p.lists.block_k
                            ? row + (p.total_k - p.total_q) / p.lists.block_k
                            : 1;
  if (!__all_sync(kAllLanes, p.lists.count[at] >= least)) return false;
  return __all_sync(kAllLanes, is_full(p, at, row));
}

// All lists, by a whole thread block; all come to the same answer.
__device__ __forceinline__ bool is_dense(const BlockSparseAttnParams& p) {
  const int64_t lists = p.lists.num_heads * p.lists.num_rows;
  bool all = true;
#pragma unroll 4
  for (int64_t at = threadIdx.x; at < lists; at += blockDim.x) {
    all &= is_full(p, at, static_cast<int>(at % p.lists.num_rows));
  }
  return __syncthreads_and(all);
}

// For all warps of the thread block; `smem_bytes` is free.
template <class Config>
__device__ __forceinline__ void attend_densely(const Maps& maps, const BlockSparseAttnParams& p,
                                               const TileOrder& order, uint8_t* smem_bytes) {
  namespace dense = attention::dense;
  using Dense = DenseConfig<Config>;
  auto& smem = *reinterpret_cast<typename Dense::Smem*>(smem_bytes);
  if (threadIdx.x == 0) dense::init_barriers<Dense>(smem);
  __syncthreads();  // barriers are ready
  const int warpgroup = static_cast<int>(threadIdx.x / kWarpgroup);
  const int kept_steps = INT32_MAX;  // no map: nothing to keep, nothing to compute again
  if (warpgroup == 0) {
    ptx::give_registers<Config::kDenseLoaderRegisters>();
    if (threadIdx.x > 0) return;
    attention::Dealer<false> dealer(p.counter, blockIdx.x, gridDim.x, num_places(order));
    dense::produce<Dense>(p, maps, order, kept_steps, smem, [&] {
      const unsigned place = dealer.unit();
      if (!dealer.is_over()) dealer.next();
      return place;
    });
  } else if (warpgroup <= dense::kConsumers) {
    ptx::take_registers<Config::kDenseRegisters>();
    dense::attend_tiles<Dense>(p, kept_steps, smem, warpgroup - 1, nullptr,
                               [](const auto& walk, uint32_t&, const DenseTile&) {
                                 if (walk.num_steps == 0) walk.release_queries();
                               });
  } else {
    ptx::give_registers<Config::kIdleRegisters>();
  }
}

}  // namespace seer::kernels::sm90
