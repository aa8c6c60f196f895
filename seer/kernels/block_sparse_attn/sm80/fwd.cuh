#pragma once
// Block-sparse attention forward for sm_80 and later chips, with cp.async and mma.sync.
//
// A thread block computes 64 queries of one head: it walks the key tiles that their list names, in
// ascending order.

#include "seer/kernels/attention/sm80/attend.cuh"
#include "seer/kernels/block_sparse_attn/sm80/config.h"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels::sm80 {

using attention::kQueries;
using attention::kThreads;

// A tile of queries and the steps that their list asks for.
struct ListedTile : QueryTile {
  const int32_t* list;
  int block_k, steps_log2;  // a listed block is 2^steps_log2 steps
  int num_steps = 0;

  __device__ __forceinline__ ListedTile(const BlockSparseAttnParams& p, int step_keys) {
    const BlockList& lists = p.lists;
    const int tiles = lists.block_q / kQueries;   // of a row
    const int tile = gridDim.x - 1 - blockIdx.x;  // last rows first: they have the longest lists
    const int row = tile / tiles, seq = last_begun(lists.cu_rows, p.num_seqs, row);
    const int first = (row - lists.cu_rows[seq]) * lists.block_q + tile % tiles * kQueries;
    static_cast<QueryTile&>(*this) = of(p, blockIdx.y, seq, first, kQueries);
    if (num_queries <= 0) return;  // a row behind the last has no list either

    const int64_t entry = head / (p.num_q_heads / lists.num_heads) * lists.num_rows + row;
    list = lists.list + lists.begin[entry];
    block_k = lists.block_k;
    steps_log2 = __ffs(block_k / step_keys) - 1;
    num_steps = lists.count[entry] << steps_log2;
    // Lists ascend: what no query sees is at the end.
    while (num_steps > 0 && first_key(num_steps - 1, step_keys) > last_key()) --num_steps;
  }

  // The last listed tile begins before the sequence's end: it has one key at least.
  __device__ __forceinline__ int first_key(int step, int step_keys) const {
    const int part = step & ((1 << steps_log2) - 1);
    return list[step >> steps_log2] * block_k + part * step_keys;
  }
};

template <class Config>
__global__ void __launch_bounds__(kThreads, Config::kBlocksPerSm)
    forward(const __grid_constant__ BlockSparseAttnParams p) {
  extern __shared__ __align__(128) unsigned char smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::Tiles*>(smem_bytes);
  const ListedTile tile(p, Config::kKeys);
  if (tile.num_queries <= 0) return;

  const float scale_log2 = p.scale * 1.44269504f;
  float rO[Config::kHeadDim / 8][4], inverse[2], lse[2];
  device::OnlineSoftmax softmax;
  attention::attend<Config>(
      p, tile, tile.num_steps, smem, rO,
      [&](int step) { return step < tile.num_steps ? tile.first_key(step, Config::kKeys) : 0; },
      [&](int, auto& rS, float(&keep)[2]) { softmax.update(rS, scale_log2, keep); });
  softmax.finish(inverse, lse);
  attention::store<typename Config::Element>(p, tile, rO, inverse, lse);
}

template <class Element, int kHeadDim>
void run_forward(const BlockSparseAttnParams& p, void* stream) {
  using Config = ForwardConfig<Element, kHeadDim>;
  const int64_t tiles = p.lists.num_rows * (p.lists.block_q / kQueries);
  if (tiles == 0) return;
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(p.num_q_heads));
  launch(forward<Config>, grid, kThreads, sizeof(typename Config::Tiles), stream, p);
}

}  // namespace seer::kernels::sm80
