#pragma once
// Sizes of the sm90 forward and its shared memory, for one element type and head size.

#include <cstddef>
#include <cstdint>

namespace seer::kernels::sm90 {

constexpr int kTile = 64;      // queries of a row, keys of a step
constexpr int kThreads = 128;  // a thread block is one warpgroup

template <class Element_, int kHeadDim_>
struct ForwardConfig {
  using Element = Element_;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kColumns = (kHeadDim + 63) / 64 * 64;  // in shared memory
  static constexpr int kChunkBytes = kTile * 128;             // 64 columns, rows of 128 bytes
  static constexpr int kTileBytes = kChunkBytes * (kColumns / 64);

  // Queries in registers save shared memory, a third thread block fits. With 64 columns ptxas
  // 13.0.88 gives their registers to the weights although the next step reads them again; 256
  // columns leave no registers.
  static constexpr bool kQueriesInRegisters = kHeadDim == 96 || kHeadDim == 128;
  static constexpr int kSlots = kHeadDim <= 128 ? 2 : 1;  // key tiles and value tiles on their way
  static constexpr int kBlocksPerSm = kHeadDim == 64 ? 5 : kHeadDim == 256 ? 2 : 3;

  struct Smem {
    // Queries that go on to registers borrow the last value slot until they are there.
    alignas(1024) uint8_t query[kQueriesInRegisters ? 1024 : kTileBytes];
    alignas(1024) uint8_t key[kSlots][kTileBytes];
    alignas(1024) uint8_t value[kSlots][kTileBytes];
    uint64_t key_full[kSlots], value_full[kSlots], query_full;
  };
  static_assert(kBlocksPerSm * (sizeof(Smem) + 1024) <= 228 * 1024, "a multiprocessor has 228 KiB");
};

}  // namespace seer::kernels::sm90
