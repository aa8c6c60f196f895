#pragma once
// Dense attention on sm_90a, for the ops that have it: sizes and shared memory, for one element type
// and head size.

#include "seer/kernels/attention/instance.h"
#include "seer/kernels/attention/sm90/maps.h"
#include "seer/kernels/attention/sm90/tile.cuh"
#include "seer/kernels/attention/tile_order.h"

namespace seer::kernels::attention::dense {

constexpr int kConsumers = 2;                // warpgroups that compute, 64 queries each
constexpr int kRow = 64;                     // queries of a consumer, keys of a maximum
constexpr int kQueries = kConsumers * kRow;  // of a thread block
constexpr int kKeys = 128;                   // of a step
constexpr int kThreads = (kConsumers + 1) * kWarpgroup;

// Maxima of a step: one for every query and 64 keys.
constexpr int kStepMaxima = kKeys / kRow * kRow;

// kPools: scores' maxima are kept.
template <class Element_, int kHeadDim_, bool kPools_>
struct Config {
  using Element = Element_;
  static constexpr bool kHasValues = true;  // or queries and keys alone
  static constexpr bool kPools = kPools_;
  static constexpr int kConsumers = dense::kConsumers, kQueries = dense::kQueries;
  static constexpr int kReaders = kConsumers;  // of a key tile
  static constexpr int kKeys = dense::kKeys;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kChunks = kHeadDim / 64;
  static constexpr int kQueryChunk = kRow * 128;  // bytes
  static constexpr int kKeyChunk = kKeys * 128;
  static constexpr int kStages = kHeadDim == 64 ? 4 : 2;  // key tiles and value tiles on their way

  // 65536 registers: what the launch gives each of three warpgroups, redistributed.
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;

  struct Smem {
    alignas(1024) uint8_t query[kConsumers][kChunks * kQueryChunk];
    alignas(1024) uint8_t key[kStages][kChunks * kKeyChunk];
    alignas(1024) uint8_t value[kStages][kChunks * kKeyChunk];
    alignas(16) float lse[kConsumers][kRow];
    DenseTile tile[2];
    float sums[kConsumers * 128];
    uint64_t query_full, query_empty;
    uint64_t key_full[kStages], key_empty[kStages];
    uint64_t value_full[kStages], value_empty[kStages];
  };
  static_assert(sizeof(Smem) + 1024 <= 228 * 1024, "a multiprocessor has 228 KiB");
};

}  // namespace seer::kernels::attention::dense
