#pragma once
// Attention of up to kTileLanes queries to key blocks that come one after another: the online
// softmax over a tile engine, with its scratch memory. One per thread.

#include <algorithm>
#include <cstdint>
#include <span>

#include "seer/kernels/attention/params.h"
#include "seer/kernels/simd/aligned_buffer.h"
#include "seer/kernels/simd/element.h"
#include "seer/kernels/simd/tile_engine.h"

namespace seer::kernels {

// One query of one head: a row of D features, where its results go (o: null where the call has none),
// and the last key that it sees (-1: none).
struct TileQuery {
  const void* q;
  void* o;
  float* lse;
  int32_t last_key;
};

// Query i of a sequence.
inline TileQuery tile_query(const PackedAttentionParams& p, int seq, int64_t head, int64_t i) {
  const int64_t token = p.cu_q[seq] + i;
  return {element_at(p.dtype, p.q.data, token * p.q.token_stride + head * p.q.head_stride),
          p.o.data
              ? element_at(p.dtype, p.o.data, token * p.o.token_stride + head * p.o.head_stride)
              : nullptr,
          p.lse + head * p.total_q + token,
          static_cast<int32_t>(std::max<int64_t>(p.last_key(seq, i), -1))};
}

// A packed key block, with values where the call has an output; `first_key` counts from the start of the sequence.
struct KvBlock {
  const void* k;
  const void* v;
  int32_t first_key;
};

class AttentionTile {
 public:
  AttentionTile(const TileEngine& engine, const PackedAttentionParams& p, int block_k);

  // Starts a tile; at most kTileLanes queries.
  void begin(std::span<const TileQuery> queries);
  int lanes() const { return lanes_; }          // queries, padded to a multiple of 16
  int32_t last_key() const { return latest_; }  // the last key that any query of the tile sees
  // Adds blocks. row_max [blocks, lanes], where given, receives the largest unscaled score of each
  // query in each block, -inf where the query sees no key of it.
  void add(std::span<const KvBlock> blocks, float* row_max = nullptr);
  // Only row_max. Scores that are NaN do not count. Then sum_maxima() takes the place of the sum over keys.
  void add_maxima(std::span<const KvBlock> blocks, float* row_max);
  // After all blocks were added: lse becomes that of row_max [blocks, lanes] (NaN where it is NaN already). `scratch`: as large.
  // Maxima become large enough for weights() of 2^`smallest`, but for those of blocks that a query does not see.
  void sum_maxima(int64_t blocks, float* row_max, float* scratch, float smallest);
  // Writes lse of the tile's queries, and o where the call has one.
  void end();
  // After end(): x [rows, lanes], unscaled scores, become softmax weights; 0 where a query saw no
  // key.
  void weights(int64_t rows, float* x) const;

 private:
  void add_step(std::span<const KvBlock> blocks, float* row_max);
  void score(const KvBlock& block, float* s, float* top);

  const TileEngine& engine_;
  DType dtype_;
  bool has_output_;
  int head_dim_, padded_, block_k_, step_blocks_;
  float scale_log2_;
  AlignedBuffer q_, s_, acc_;
  int lanes_ = 0, num_queries_ = 0;
  int32_t earliest_ = 0, latest_ = 0;  // of the queries' last keys
  bool is_empty_ = true;
  // Per lane. m and l: the reference maximum in base 2 and the sum of 2^(s - m).
  alignas(64) float m_[kTileLanes], l_[kTileLanes], alpha_[kTileLanes], step_max_[kTileLanes];
  alignas(64) int32_t last_key_[kTileLanes];
  void* o_[kTileLanes];
  float* lse_[kTileLanes];
};

}  // namespace seer::kernels
