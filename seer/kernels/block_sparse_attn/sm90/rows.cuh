#pragma once
// Which rows a loader warp works on.

#include <cmath>

#include "seer/kernels/block_sparse_attn/params.h"
#include "seer/kernels/block_sparse_attn/sm90/config.h"

namespace seer::kernels::sm90 {

constexpr uint32_t kAllLanes = 0xffffffff;

// Rows (64 queries) of one head; a listed row of 128 queries is two.
__host__ __device__ inline unsigned rows_per_head(const BlockSparseAttnParams& p) {
  return static_cast<unsigned>(p.lists.num_rows) * (p.lists.block_q / kTile);
}
__host__ __device__ inline unsigned num_parts(const BlockSparseAttnParams& p) {
  return p.num_parts > 1 ? p.num_parts : 1;
}
// A piece of a list is not shorter than this (in blocks), or starting it costs more than it saves.
constexpr int kMinPart = 16;

// Where the pieces' results lie: outputs of all rows [64, D], then their log-sum-exps [64].
__host__ __device__ inline float* partial_lse(const BlockSparseAttnParams& p) {
  return p.partials + int64_t{num_parts(p)} * p.num_q_heads * rows_per_head(p) * kTile * p.head_dim;
}

// The rows of all heads, one head after another so that its keys stay in the L2 cache, the last
// (longest) row of a head first; where lists are cut, the first pieces of all heads, then the second
// ones. Each is taken by whoever is free: neighbours in time work on the same keys, and all end
// together.
class RowFinder {
 public:
  // `first`: the row that this loader begins with, of `num_loaders`.
  __device__ __forceinline__ RowFinder(const BlockSparseAttnParams& p, unsigned first,
                                       unsigned num_loaders)
      : p_(p),
        index_(first),
        num_loaders_(num_loaders),
        num_rows_(num_parts(p) * p.num_q_heads * rows_per_head(p)) {}

  // The next row with something to compute goes to `row`; empty ones are answered on the way. For a
  // whole warp.
  template <class Config>
  __device__ __forceinline__ void find(Row* row) {
    for (; index_ < num_rows_; take()) {
      const unsigned per_head = rows_per_head(p_);
      const unsigned tiles_per_row = p_.lists.block_q / kTile;
      const int head = static_cast<int>(index_ / per_head % p_.num_q_heads);
      const unsigned part = index_ / per_head / p_.num_q_heads;
      const unsigned tile = per_head - 1 - index_ % per_head;
      const int list_row = static_cast<int>(tile / tiles_per_row);
      const int list_head = head / (p_.num_q_heads / p_.lists.num_heads);
      const int64_t at = list_head * p_.lists.num_rows + list_row;
      // These two do not depend on each other, nor on the search below.
      const int64_t list_begin = p_.lists.begin[at];
      const int count = p_.lists.count[at];
      const int b = sequence_of(list_row);
      const int q_begin = p_.cu_q[b], q_len = p_.cu_q[b + 1] - q_begin;
      const int k_begin = p_.cu_k[b], k_len = p_.cu_k[b + 1] - k_begin;
      const int first_query = static_cast<int>(tile - p_.lists.cu_rows[b] * tiles_per_row) * kTile;
      const int q_left = q_len - first_query;
      if (q_left <= 0) continue;  // the second half of a row of 128 queries

      int first = 0, last = count;  // blocks of this piece
      const unsigned out = (part * p_.num_q_heads + head) * per_head + tile;
      if (p_.num_parts > 1) {
        const int size = max((count + p_.num_parts - 1) / p_.num_parts, kMinPart);
        first = min(static_cast<int>(part) * size, count);
        last = min(first + size, count);
      }
      if (first == last) {
        if (p_.num_parts > 1) {
          for (int i = threadIdx.x % 32; i < kTile; i += 32) {
            partial_lse(p_)[int64_t{out} * kTile + i] = -INFINITY;
          }
        } else {
          store_nothing<Config>(head, int64_t{q_begin} + first_query, min(kTile, q_left));
        }
        continue;
      }
      if (threadIdx.x % 32 == 0) {
        row->list = p_.lists.list + list_begin + first;
        row->num_steps = (last - first) * (p_.lists.block_k / kTile);
        row->head = head;
        row->kv_head = head / (p_.num_q_heads / p_.num_kv_heads);
        row->q_token = q_begin + first_query;
        row->q_left = q_left;
        row->k_begin = k_begin;
        row->k_len = k_len;
        row->limit = p_.causal ? first_query + k_len - q_len : 0x3fffffff;
        row->out = out;
      }
      __syncwarp();
      return;
    }
    if (threadIdx.x % 32 == 0) row->num_steps = kNoRow;
    __syncwarp();
  }

  __device__ __forceinline__ void take() {
    if (!p_.counter || num_rows_ <= num_loaders_) {
      index_ += num_loaders_;
      return;
    }
    unsigned taken = 0;
    if (threadIdx.x % 32 == 0) {
      taken = atomicAdd(p_.counter, 1);
      // Every loader asks once in vain: the last to ask leaves a zero for the next launch.
      if (taken == num_rows_ - 1) *p_.counter = 0;
    }
    index_ = num_loaders_ + __shfl_sync(kAllLanes, taken, 0);
  }

 private:
  const BlockSparseAttnParams& p_;
  unsigned index_;
  const unsigned num_loaders_, num_rows_;

  // The last sequence that begins at or before the row.
  __device__ __forceinline__ int sequence_of(int list_row) const {
    int b = 0, last = p_.num_seqs - 1;
    while (b < last) {
      const int middle = (b + last + 1) / 2;
      p_.lists.cu_rows[middle] <= list_row ? b = middle : last = middle - 1;
    }
    return b;
  }

  // The answer to an empty list.
  template <class Config>
  __device__ __forceinline__ void store_nothing(int head, int64_t token, int rows) const {
    constexpr int kChunks = Config::kHeadDim / 8;  // of 16 bytes
    const int lane = threadIdx.x % 32;
#pragma unroll 1
    for (int i = lane; i < rows * kChunks; i += 32) {
      auto* gO = static_cast<typename Config::Element*>(p_.o.data) +
                 (token + i / kChunks) * p_.o.token_stride + head * p_.o.head_stride +
                 i % kChunks * 8;
      *reinterpret_cast<uint4*>(gO) = make_uint4(0, 0, 0, 0);
    }
#pragma unroll 1
    for (int i = lane; i < rows; i += 32) {
      p_.lse[head * p_.total_q + token + i] = -INFINITY;
    }
  }
};

}  // namespace seer::kernels::sm90
