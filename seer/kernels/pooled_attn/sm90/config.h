#pragma once
// Sizes of the sm90 kernels and their workspace.

#include "seer/kernels/attention/sm90/dense/config.h"
#include "seer/kernels/pooled_attn/params.h"

namespace seer::kernels::pooled_sm90 {

namespace dense = attention::dense;
using attention::kAllLanes;
using attention::kWarpgroup;
using dense::kKeys;
using dense::kRow;

constexpr int64_t kCounterBytes = 256;  // at the workspace's start: places taken so far

// The map alone. What bounds it is exponentials: while a consumer waits for its scores or takes their
// maxima, the three others keep the units busy that compute them.
template <class Element_, int kHeadDim_, bool kBlockSoftmax_ = false>
struct MapConfig {
  using Element = Element_;
  static constexpr bool kHasValues = false;
  static constexpr bool kPools = true;
  static constexpr bool kBlockSoftmax = kBlockSoftmax_;
  static constexpr int kConsumers = 4, kQueries = kConsumers * kRow;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kChunks = (kHeadDim + 63) / 64;
  static constexpr int kQueryChunk = kRow * 128;  // bytes
  static constexpr int kKeyChunk = kKeys * 128;
  static constexpr int kStages = kChunks == 1 ? 8 : 4;

  // 61440 registers: what the launch gives each of five warpgroups, redistributed.
  static constexpr int kProducerRegisters = 32, kConsumerRegisters = 112;

  struct Smem {
    alignas(1024) uint8_t query[kConsumers][kChunks * kQueryChunk];
    alignas(1024) uint8_t key[kStages][kChunks * kKeyChunk];
    alignas(16) float lse[kConsumers][kRow];
    DenseTile tile[2];
    uint64_t query_full, query_empty;
    uint64_t key_full[kStages], key_empty[kStages];
  };
  static_assert(sizeof(Smem) + 1024 <= 228 * 1024, "a multiprocessor has 228 KiB");
};

// Steps whose maxima are kept until a tile ends, at most. The scores of a longer row's first steps are
// computed a second time.
struct Kept {
  int queries;  // of a tile
  int most_steps;
  constexpr int64_t step_bytes() const {
    return queries / kRow * dense::kStepMaxima * int64_t{sizeof(float)};
  }
};
// Of rows beyond 90112 keys: 704 KiB a thread block, 95 MB for an H100.
constexpr Kept kKeptWithOutput = {dense::kQueries, 704};
// Beyond 131072 keys: 2 MiB a thread block, 277 MB. At 128k, 32 heads, D = 64 o would take 537 MB.
constexpr Kept kKeptAlone = {MapConfig<bf16, 64>::kQueries, 1024};
constexpr const Kept& kept_of(const PooledAttnParams& p) {
  return p.o.data ? kKeptWithOutput : kKeptAlone;
}

constexpr int64_t longest_row_steps(const PooledAttnParams& p) {
  return (p.num_blocks * p.block_k + kKeys - 1) / kKeys;
}

}  // namespace seer::kernels::pooled_sm90
