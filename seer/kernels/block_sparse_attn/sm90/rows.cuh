#pragma once
// Which row a thread block works on.

#include "seer/kernels/block_sparse_attn/params.h"
#include "seer/kernels/block_sparse_attn/sm90/config.h"

namespace seer::kernels::sm90 {

// A row: 64 queries of one head, and the steps that its list asks for.
struct Row {
  const int32_t* list;
  int num_steps;        // key tiles
  int tiles_per_block;  // key tiles of a listed block
  int head, kv_head;
  int q_token;  // of the packed tokens: the row's first query
  int q_left;   // queries from there to the end of the sequence; none left: nothing to do
  int k_begin, k_len;
  int limit;  // last key that the first query sees

  // The key tile of a step, counted from the sequence's first.
  __device__ __forceinline__ int key_tile(int step) const {
    return tiles_per_block == 1
               ? list[step]
               : list[step / tiles_per_block] * tiles_per_block + step % tiles_per_block;
  }

  // Row of number `index`: one head after another, so that its keys stay in the L2 cache, the last
  // (longest) row of a head first.
  __device__ __forceinline__ Row(const BlockSparseAttnParams& p, unsigned index) {
    const unsigned tiles_per_row = p.lists.block_q / kTile;  // a row of 128 queries is two here
    const unsigned per_head = static_cast<unsigned>(p.lists.num_rows) * tiles_per_row;
    head = static_cast<int>(index / per_head);
    const unsigned tile = per_head - 1 - index % per_head;
    const int list_row = static_cast<int>(tile / tiles_per_row);
    const int list_head = head / (p.num_q_heads / p.lists.num_heads);
    const int64_t at = list_head * p.lists.num_rows + list_row;
    // These two do not depend on each other, nor on the search below.
    list = p.lists.list + p.lists.begin[at];
    const int count = p.lists.count[at];
    int b = 0, last = p.num_seqs - 1;  // the last sequence that begins at or before the row
    while (b < last) {
      const int middle = (b + last + 1) / 2;
      p.lists.cu_rows[middle] <= list_row ? b = middle : last = middle - 1;
    }
    const int q_begin = p.cu_q[b], q_len = p.cu_q[b + 1] - q_begin;
    k_begin = p.cu_k[b];
    k_len = p.cu_k[b + 1] - k_begin;
    const int first_query = static_cast<int>(tile - p.lists.cu_rows[b] * tiles_per_row) * kTile;
    tiles_per_block = p.lists.block_k / kTile;
    num_steps = count * tiles_per_block;
    kv_head = head / (p.num_q_heads / p.num_kv_heads);
    q_token = q_begin + first_query;
    q_left = q_len - first_query;
    limit = p.causal ? first_query + k_len - q_len : 0x3fffffff;
  }
};

// The answer to an empty list.
template <class Config>
__device__ void store_nothing(const BlockSparseAttnParams& p, const Row& row) {
  constexpr int kChunks = Config::kHeadDim / 8;  // of 16 bytes
  const int rows = min(kTile, row.q_left);
  for (int i = threadIdx.x; i < rows * kChunks; i += kThreads) {
    auto* gO = static_cast<typename Config::Element*>(p.o.data) +
               (int64_t{row.q_token} + i / kChunks) * p.o.token_stride +
               row.head * p.o.head_stride + i % kChunks * 8;
    *reinterpret_cast<uint4*>(gO) = make_uint4(0, 0, 0, 0);
  }
  for (int i = threadIdx.x; i < rows; i += kThreads) {
    p.lse[row.head * p.total_q + row.q_token + i] = -INFINITY;
  }
}

}  // namespace seer::kernels::sm90
