#pragma once
// Shared memory of the sm90 kernel, for one element type and head size.

#include "seer/kernels/attention/instance.h"
#include "seer/kernels/attention/sm90/maps.h"
#include "seer/kernels/attention/sm90/tile.cuh"
#include "seer/kernels/pooled_attn/pooled_tile.cuh"
#include "seer/kernels/pooled_attn/sm90/sizes.h"

namespace seer::kernels::pooled_sm90 {

using attention::kAllLanes;
using attention::kWarpgroup;
using attention::Maps;

// kPools: with the map; without it this is dense attention alone (block_sparse_attn, lists that name
// every block).
template <class Element_, int kHeadDim_, bool kPools_ = true>
struct Config {
  using Element = Element_;
  static constexpr bool kPools = kPools_;
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
    PooledTile tile[2];
    float sums[kConsumers * 128];
    uint64_t query_full, query_empty;
    uint64_t key_full[kStages], key_empty[kStages];
    uint64_t value_full[kStages], value_empty[kStages];
  };
  static_assert(sizeof(Smem) + 1024 <= 228 * 1024, "a multiprocessor has 228 KiB");
};

// Starts the kernel. Instances: seer_instances() in CMakeLists.txt.
template <class Element, int kHeadDim>
void run_attention(const PooledAttnParams& p, void* stream);

}  // namespace seer::kernels::pooled_sm90
