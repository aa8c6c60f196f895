#pragma once
// Sizes of the sm90 kernels and their workspace.

#include <type_traits>

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
template <class Element_, int kHeadDim_>
struct MapConfig {
  using Element = Element_;
  static constexpr bool kHasValues = false;
  static constexpr bool kPools = true;
  static constexpr int kConsumers = 4, kQueries = kConsumers * kRow;
  static constexpr int kReaders = kConsumers;
  static constexpr int kKeys = dense::kKeys;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kChunks = kHeadDim / 64;
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

struct F32Scores;
struct F16Scores;

// Scores of lookup heads (lookup.cuh).
template <class Element_, int kHeadDim_, int kQueries_>
struct LookupConfig {
  using Element = Element_;
  static constexpr bool kIsF16 = std::is_same_v<Element, f16>;
  using Scores = std::conditional_t<kIsF16, F16Scores, F32Scores>;
  static constexpr bool kHasValues = false;
  static constexpr int kConsumers = 4, kQueries = kQueries_, kGroups = kQueries / kRow;
  static constexpr int kParts = kConsumers / kGroups;  // consumers with the same queries
  static constexpr int kReaders = kGroups;
  static constexpr int kBlocks =
      kIsF16 ? 2 : 1;  // of keys, whose scores a warpgroup holds in 32 registers
  static constexpr int kKeys = 2 * kBlocks * kRow;
  static constexpr int kHeadDim = kHeadDim_, kChunks = 1;
  static constexpr int kRowBytes = 2 * kHeadDim;  // 128 or 64
  static constexpr int kKeyChunk = kKeys * kRowBytes;
  static constexpr int kStages = 128 * 1024 / kKeyChunk;  // what hides how long keys are under way
  static_assert(kStages % kParts == 0, "a place in the ring belongs to one part");

  // Of 61440. Queries of 64 numbers take consumers 16.
  static constexpr int kConsumerRegisters = kHeadDim == 32 ? 104 : 112;
  static constexpr int kProducerRegisters = kHeadDim == 32 ? 40 : 32;

  struct Smem {
    alignas(1024) uint8_t query[kGroups][kRow * kRowBytes];
    alignas(1024) uint8_t key[kStages][kKeyChunk];
    alignas(16) float lse[kConsumers][kRow];
    float2 sums[kConsumers][kRow];
    DenseTile tile[2];
    uint64_t query_full, query_empty;
    uint64_t key_full[kStages], key_empty[kStages];
  };
  static_assert(sizeof(Smem) + 1024 <= 228 * 1024, "a multiprocessor has 228 KiB");
};

// Queries of a lookup head's tile: fewer where tiles are few, so that more multiprocessors have one.
inline int lookup_queries(const PooledAttnParams& p) {
  return num_places(tile_order(p, 256, 0)) < 192 ? 128 : 256;
}

// Steps whose maxima are kept until a tile ends, at most. The scores of a longer row's first steps are
// computed a second time.
struct Kept {
  int queries;  // of a tile
  int keys;     // of a step
  int most_steps;
  constexpr int64_t step_bytes() const {
    return queries / kRow * dense::kStepMaxima * int64_t{sizeof(float)};
  }
};
// Of rows beyond 90112 keys: 704 KiB a thread block, 95 MB for an H100.
constexpr Kept kKeptWithOutput = {dense::kQueries, kKeys, 704};
// Beyond 131072 keys: 2 MiB a thread block, 277 MB. At 128k, 32 heads, D = 64 o would take 537 MB.
constexpr Kept kKeptAlone = {MapConfig<bf16, 64>::kQueries, kKeys, 1024};
inline Kept kept_of(const PooledAttnParams& p) {
  // Of lookup heads a step takes as much with twice the keys in f16.
  if (p.block_softmax) return {lookup_queries(p), p.dtype == DType::f16 ? 2 * kKeys : kKeys, 1024};
  return p.o.data ? kKeptWithOutput : kKeptAlone;
}

constexpr int64_t longest_row_steps(const PooledAttnParams& p, const Kept& kept) {
  return (p.num_blocks * p.block_k + kept.keys - 1) / kept.keys;
}

}  // namespace seer::kernels::pooled_sm90
