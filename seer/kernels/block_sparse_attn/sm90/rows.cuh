#pragma once
// Which rows a loader warp works on. Everything here is called by whole warps.

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

// Hands out units of work in order, each to whoever asks first, so that all end together.
class Dealer {
 public:
  // This asker's first unit is `first`; all askers' first units are 0 to num_askers - 1.
  __device__ __forceinline__ Dealer(int32_t* counter, unsigned first, unsigned num_askers,
                                    unsigned num_units)
      : counter_(counter), unit_(first), num_askers_(num_askers), num_units_(num_units) {}

  __device__ __forceinline__ bool is_over() const { return unit_ >= num_units_; }
  __device__ __forceinline__ unsigned unit() const { return unit_; }

  __device__ __forceinline__ void next() {
    if (!counter_ || num_units_ <= num_askers_) {
      unit_ += num_askers_;
      return;
    }
    unsigned taken = 0;
    if (threadIdx.x % 32 == 0) {
      taken = atomicAdd(counter_, 1);
      // Everyone asks once in vain: the last to ask leaves a zero for the next launch.
      if (taken == num_units_ - 1) *counter_ = 0;
    }
    unit_ = num_askers_ + __shfl_sync(kAllLanes, taken, 0);
  }

 private:
  int32_t* const counter_;
  unsigned unit_;
  const unsigned num_askers_, num_units_;
};

// The answer to an empty list.
template <class Config>
__device__ __forceinline__ void store_nothing(const BlockSparseAttnParams& p, int head,
                                              int64_t token, int rows) {
  constexpr int kChunks = Config::kHeadDim / 8;  // of 16 bytes
  const int lane = threadIdx.x % 32;
#pragma unroll 1
  for (int i = lane; i < rows * kChunks; i += 32) {
    auto* gO = static_cast<typename Config::Element*>(p.o.data) +
               (token + i / kChunks) * p.o.token_stride + head * p.o.head_stride + i % kChunks * 8;
    *reinterpret_cast<uint4*>(gO) = make_uint4(0, 0, 0, 0);
  }
#pragma unroll 1
  for (int i = lane; i < rows; i += 32) {
    p.lse[head * p.total_q + token + i] = -INFINITY;
  }
}

// Describes row `tile` of a head, or of one piece of its lists, in `row`. False: there is nothing to
// compute; what was to be written has been.
template <class Config>
__device__ __forceinline__ bool describe_row(const BlockSparseAttnParams& p, int head,
                                             unsigned part, unsigned tile, Row* row) {
  const unsigned tiles_per_row = p.lists.block_q / kTile;
  const int list_row = static_cast<int>(tile / tiles_per_row);
  const int list_head = head / (p.num_q_heads / p.lists.num_heads);
  const int64_t at = list_head * p.lists.num_rows + list_row;
  // These two do not depend on each other, nor on the search below.
  const int64_t list_begin = p.lists.begin[at];
  const int count = p.lists.count[at];
  int b = 0, last_seq = p.num_seqs - 1;  // the last sequence that begins at or before the row
  while (b < last_seq) {
    const int middle = (b + last_seq + 1) / 2;
    p.lists.cu_rows[middle] <= list_row ? b = middle : last_seq = middle - 1;
  }
  const int q_begin = p.cu_q[b], q_len = p.cu_q[b + 1] - q_begin;
  const int k_begin = p.cu_k[b], k_len = p.cu_k[b + 1] - k_begin;
  const int first_query = static_cast<int>(tile - p.lists.cu_rows[b] * tiles_per_row) * kTile;
  const int q_left = q_len - first_query;
  if (q_left <= 0) return false;  // the second half of a row of 128 queries

  int first = 0, last = count;  // blocks of this piece
  const unsigned out = (part * p.num_q_heads + head) * rows_per_head(p) + tile;
  if (p.num_parts > 1) {
    const int size = max((count + p.num_parts - 1) / p.num_parts, kMinPart);
    first = min(static_cast<int>(part) * size, count);
    last = min(first + size, count);
  }
  if (first == last) {
    if (p.num_parts > 1) {
      for (int i = threadIdx.x % 32; i < kTile; i += 32) {
        partial_lse(p)[int64_t{out} * kTile + i] = -INFINITY;
      }
    } else {
      store_nothing<Config>(p, head, int64_t{q_begin} + first_query, min(kTile, q_left));
    }
    return false;
  }
  if (threadIdx.x % 32 == 0) {
    row->list = p.lists.list + list_begin + first;
    row->num_steps = (last - first) * (p.lists.block_k / kTile);
    row->head = head;
    row->kv_head = head / (p.num_q_heads / p.num_kv_heads);
    row->q_token = q_begin + first_query;
    row->q_left = q_left;
    row->k_begin = k_begin;
    row->k_len = k_len;
    row->limit = p.causal ? first_query + k_len - q_len : 0x3fffffff;
    row->out = out;
  }
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

// The rows of all heads, one head after another so that its keys stay in the L2 cache, the last
// (longest) row of a head first; where lists are cut, the first pieces of all heads, then the second
// ones. Neighbours in time work on the same keys.
class RowFinder {
 public:
  __device__ __forceinline__ RowFinder(const BlockSparseAttnParams& p, unsigned first,
                                       unsigned num_loaders)
      : p_(p),
        dealer_(p.counter, first, num_loaders, num_parts(p) * p.num_q_heads * rows_per_head(p)),
        order_(p) {}

  // The next row with something to compute, or kNoRow steps.
  template <class Config>
  __device__ __forceinline__ void find(Row* row) {
    const unsigned per_head = rows_per_head(p_);
    for (; !dealer_.is_over(); dealer_.next()) {
      const unsigned unit = dealer_.unit(), part = unit / per_head / p_.num_q_heads;
      const int head = order_.head(part, unit / per_head % p_.num_q_heads);
      if (describe_row<Config>(p_, head, part, per_head - 1 - unit % per_head, row)) return;
    }
    if (threadIdx.x % 32 == 0) row->num_steps = kNoRow;
    __syncwarp();
  }
  __device__ __forceinline__ void next() { dealer_.next(); }

 private:
  const BlockSparseAttnParams& p_;
  Dealer dealer_;
  const HeadOrder order_;
};

}  // namespace seer::kernels::sm90
