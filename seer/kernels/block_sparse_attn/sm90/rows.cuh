#pragma once
// Which rows a thread block works on, found while it computes the row before.

#include "seer/kernels/block_sparse_attn/params.h"
#include "seer/kernels/block_sparse_attn/sm90/config.h"

namespace seer::kernels::sm90 {

// The rows of all heads, one head after another so that its keys stay in the L2 cache, the last
// (longest) row of a head first. `begin` and `end` are a thread block's share.
struct RowQueue {
  int64_t next, end;

  __device__ RowQueue(const BlockSparseAttnParams& p, int rows_per_block)
      : next(int64_t{blockIdx.x} * rows_per_block),
        end(min(next + rows_per_block, tiles(p) * p.num_q_heads)) {}

  // 64-query tiles of a list head: a row of 128 queries is two.
  __device__ static int64_t tiles(const BlockSparseAttnParams& p) {
    return p.lists.num_rows * (p.lists.block_q / kTile);
  }

  // The next row with something to compute goes to `row`; num_steps = 0 there: no more. Rows of
  // empty lists are answered here. Called by one whole warp; any lane may write `row`.
  template <class Config>
  __device__ void pop(const BlockSparseAttnParams& p, Row* row) {
    const int lane = threadIdx.x % 32;
    for (; next < end; ++next) {
      const int64_t per_head = tiles(p);
      const int head = static_cast<int>(next / per_head);
      const int64_t tile = per_head - 1 - next % per_head;
      const int tiles_per_row = p.lists.block_q / kTile;
      const int list_row = static_cast<int>(tile / tiles_per_row);
      const int list_head = head / (p.num_q_heads / p.lists.num_heads);
      const int64_t at = list_head * p.lists.num_rows + list_row;
      // These two do not depend on each other, nor on the search below.
      const int64_t list_begin = p.lists.begin[at];
      const int count = p.lists.count[at];
      const int b = sequence_of(p, list_row);
      const int in_sequence =
          (list_row - p.lists.cu_rows[b]) * tiles_per_row + static_cast<int>(tile % tiles_per_row);
      const int q_begin = p.cu_q[b], q_len = p.cu_q[b + 1] - q_begin;
      const int k_begin = p.cu_k[b], k_len = p.cu_k[b + 1] - k_begin;
      Row r;
      r.list = p.lists.list + list_begin;
      r.num_steps = count * (p.lists.block_k / kTile);
      r.head = head;
      r.kv_head = head / (p.num_q_heads / p.num_kv_heads);
      r.q_token = q_begin + in_sequence * kTile;
      r.q_left = q_len - in_sequence * kTile;
      r.k_begin = k_begin;
      r.k_len = k_len;
      r.limit = p.causal ? in_sequence * kTile + k_len - q_len : 0x3fffffff;
      if (r.q_left <= 0) continue;  // the second half of a row of 128 queries
      if (r.num_steps == 0) {
        store_nothing<Config>(p, r, lane);
        continue;
      }
      asm volatile("prefetch.global.L1 [%0];" ::"l"(r.list));
      if (lane == 0) *row = r;
      ++next;
      return;
    }
    if (lane == 0) row->num_steps = 0;
  }

 private:
  __device__ static int sequence_of(const BlockSparseAttnParams& p, int list_row) {
    int low = 0, high = p.num_seqs - 1;  // the last sequence that begins at or before the row
    while (low < high) {
      const int middle = (low + high + 1) / 2;
      if (p.lists.cu_rows[middle] <= list_row) {
        low = middle;
      } else {
        high = middle - 1;
      }
    }
    return low;
  }

  template <class Config>
  __device__ static void store_nothing(const BlockSparseAttnParams& p, const Row& row, int lane) {
    constexpr int kChunks = Config::kHeadDim / 8;  // of 16 bytes
    const int rows = min(kTile, row.q_left);
    for (int i = lane; i < rows * kChunks; i += 32) {
      auto* gO = static_cast<typename Config::Element*>(p.o.data) +
                 (int64_t{row.q_token} + i / kChunks) * p.o.token_stride +
                 row.head * p.o.head_stride + i % kChunks * 8;
      *reinterpret_cast<uint4*>(gO) = make_uint4(0, 0, 0, 0);
    }
    for (int i = lane; i < rows; i += 32) {
      p.lse[row.head * p.total_q + row.q_token + i] = -INFINITY;
    }
  }
};

}  // namespace seer::kernels::sm90
