#pragma once
// Shared memory of the sm90 kernel, for one element type and head size.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "seer/kernels/pooled_attn/query_tile.cuh"
#include "seer/kernels/pooled_attn/sm90/sizes.h"

namespace seer::kernels::pooled_sm90 {

using bf16 = __nv_bfloat16;
using f16 = __half;

// Tiles are chunks of 64 columns, rows of 128 bytes in the 128-byte swizzle. kPools: with the map;
// without it this is dense attention alone (block_sparse_attn, lists that name every block).
template <class Element_, int kHeadDim_, bool kPools_ = true>
struct Config {
  using Element = Element_;
  static constexpr bool kPools = kPools_;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kChunks = kHeadDim / 64;
  static constexpr int kQueryChunk = kRow * 128;  // bytes
  static constexpr int kKeyChunk = kKeys * 128;
  static constexpr int kStages = kHeadDim == 64 ? 4 : 2;  // key tiles and value tiles on their way

  // 65536 registers: what the launch gives each of three warpgroups, shared out anew.
  static constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;

  struct Smem {
    alignas(1024) uint8_t query[kConsumers][kChunks * kQueryChunk];
    alignas(1024) uint8_t key[kStages][kChunks * kKeyChunk];
    alignas(1024) uint8_t value[kStages][kChunks * kKeyChunk];
    alignas(16) float lse[kConsumers][kRow];
    QueryTile tile[2];
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
