#pragma once
// Which tiles of queries a loader warp works on. Everything here is called by whole warps.

#include "seer/kernels/attention/sm90/dealer.cuh"
#include "seer/kernels/block_sparse_attn/sm90/config.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels::sm90 {

// The answer to an empty list.
template <class Config>
__device__ __forceinline__ void store_nothing(const BlockSparseAttnParams& p,
                                              const QueryTile& tile) {
  constexpr int kChunks = Config::kHeadDim / 8;  // of 16 bytes
  const int lane = threadIdx.x % 32;
  const int64_t token = tile.q_begin;
#pragma unroll 1
  for (int i = lane; i < tile.num_queries * kChunks; i += 32) {
    auto* gO = static_cast<typename Config::Element*>(p.o.data) +
               (token + i / kChunks) * p.o.token_stride + tile.head * p.o.head_stride +
               i % kChunks * 8;
    *reinterpret_cast<uint4*>(gO) = make_uint4(0, 0, 0, 0);
  }
#pragma unroll 1
  for (int i = lane; i < tile.num_queries; i += 32) {
    p.lse[tile.head * p.total_q + token + i] = -INFINITY;
  }
}

// Describes the tile of this number of a head, or of one piece of its lists, in `out`. False: there
// is nothing to compute; what was to be written has been.
template <class Config>
__device__ __forceinline__ bool describe_tile(const BlockSparseAttnParams& p, int head,
                                              unsigned part, unsigned number, ListedTile* out) {
  const unsigned tiles_per_row = p.lists.block_q / kTile;
  const int row = static_cast<int>(number / tiles_per_row);
  const int64_t at = head / (p.num_q_heads / p.lists.num_heads) * p.lists.num_rows + row;
  // These two do not depend on each other, nor on the search below.
  const int64_t list_begin = p.lists.begin[at];
  const int count = p.lists.count[at];
  const int b = last_begun(p.lists.cu_rows, p.num_seqs, row);
  const int first_query = static_cast<int>(number - p.lists.cu_rows[b] * tiles_per_row) * kTile;
  ListedTile tile{QueryTile::of(p, head, b, first_query, kTile)};
  if (tile.num_queries <= 0) return false;  // the second half of a row of 128 queries

  int first = 0, last = count;  // blocks of this piece
  tile.out = (part * p.num_q_heads + head) * tiles_per_head(p) + number;
  if (p.num_parts > 1) {
    const int size = max((count + p.num_parts - 1) / p.num_parts, kMinPart);
    first = min(static_cast<int>(part) * size, count);
    last = min(first + size, count);
  }
  if (first == last) {
    if (p.num_parts > 1) {
      for (int i = threadIdx.x % 32; i < kTile; i += 32) {
        partial_lse(p)[int64_t{tile.out} * kTile + i] = -INFINITY;
      }
    } else {
      store_nothing<Config>(p, tile);
    }
    return false;
  }
  tile.list = p.lists.list + list_begin + first;
  tile.num_steps = (last - first) * (p.lists.block_k / kTile);
  if (threadIdx.x % 32 == 0) *out = tile;
  __syncwarp();
  return true;
}

// Heads by the length of their lists, the longest first: what is left at the end is short. Heads of
// one kv head stay together, for its keys, but in the last pieces. Up to 32 heads; more stay as they
// are.
class HeadOrder {
 public:
  __device__ __forceinline__ explicit HeadOrder(const BlockSparseAttnParams& p)
      : num_heads_(p.num_q_heads), last_part_(p.num_parts - 1) {
    const int lane = threadIdx.x % 32;
    grouped_ = alone_ = lane;
    if (p.num_parts <= 1 || num_heads_ > 32) return;
    constexpr int kSamples = 8;
    int own = -1;
    if (lane < num_heads_) {
      const int32_t* count =
          p.lists.count + lane / (num_heads_ / p.lists.num_heads) * p.lists.num_rows;
      own = 0;
#pragma unroll
      for (int i = 0; i < kSamples; ++i) own += count[p.lists.num_rows * i / kSamples];
    }
    const int group = num_heads_ / p.num_kv_heads, first = lane / group * group;
    int of_group = 0;
    for (int i = 0; i < group; ++i) of_group += __shfl_sync(kAllLanes, own, (first + i) % 32);
    int rank_grouped = 0, rank_alone = 0;  // heads that come before this lane's
    for (int i = 0; i < num_heads_; ++i) {
      const int other = __shfl_sync(kAllLanes, own, i);
      const int of_other_group = __shfl_sync(kAllLanes, of_group, i);
      const bool is_longer = other > own || (other == own && i < lane);
      const bool same_group = i / group == lane / group;
      rank_alone += is_longer;
      rank_grouped += same_group
                          ? is_longer
                          : of_other_group > of_group || (of_other_group == of_group && i < lane);
    }
    // Lane i takes the head of rank i.
    for (int i = 0; i < num_heads_; ++i) {
      if (__shfl_sync(kAllLanes, rank_grouped, i) == lane) grouped_ = i;
      if (__shfl_sync(kAllLanes, rank_alone, i) == lane) alone_ = i;
    }
  }

  __device__ __forceinline__ int head(unsigned part, unsigned index) const {
    if (num_heads_ > 32) return static_cast<int>(index);
    return __shfl_sync(kAllLanes, static_cast<int>(part) == last_part_ ? alone_ : grouped_, index);
  }

 private:
  const int num_heads_, last_part_;
  int grouped_, alone_;  // of this lane's rank
};

// The tiles of all heads, one head after another so that its keys stay in the L2 cache, the last
// (longest) of a head first; where lists are cut, the first pieces of all heads, then the second
// ones. Neighbours in time work on the same keys.
class TileFinder {
 public:
  __device__ __forceinline__ TileFinder(const BlockSparseAttnParams& p, unsigned first,
                                        unsigned num_loaders)
      : p_(p),
        dealer_(p.counter, first, num_loaders, num_parts(p) * p.num_q_heads * tiles_per_head(p)),
        order_(p) {}

  // The next tile with something to compute, or kNoTile steps.
  template <class Config>
  __device__ __forceinline__ void find(ListedTile* tile) {
    const unsigned per_head = tiles_per_head(p_);
    for (; !dealer_.is_over(); dealer_.next()) {
      const unsigned unit = dealer_.unit(), part = unit / per_head / p_.num_q_heads;
      const int head = order_.head(part, unit / per_head % p_.num_q_heads);
      if (describe_tile<Config>(p_, head, part, per_head - 1 - unit % per_head, tile)) return;
    }
    if (threadIdx.x % 32 == 0) tile->num_steps = kNoTile;
    __syncwarp();
  }
  __device__ __forceinline__ void next() { dealer_.next(); }

 private:
  const BlockSparseAttnParams& p_;
  attention::Dealer<true> dealer_;
  const HeadOrder order_;
};

}  // namespace seer::kernels::sm90
