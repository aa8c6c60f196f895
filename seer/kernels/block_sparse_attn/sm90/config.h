#pragma once
// Sizes of the sm90 forward and its shared memory, for one element type and head size.

#include <cstddef>
#include <cstdint>

namespace seer::kernels::sm90 {

constexpr int kTile = 64;      // queries of a row, keys of a step
constexpr int kThreads = 128;  // a thread block is one warpgroup

// A row that a thread block works on: 64 queries of one head, and the steps that its list asks for.
struct Row {
  const int32_t* list;
  int num_steps;  // key tiles
  int head, kv_head;
  int q_token;  // of the packed tokens: the row's first query
  int q_left;   // queries from there to the end of the sequence
  int k_begin, k_len;
  int limit;  // last key that the first query sees
};

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
  static constexpr int kQuerySlots = kQueriesInRegisters ? 0 : kHeadDim == 64 ? 2 : 1;
  static constexpr int kSlots = kHeadDim <= 128 ? 2 : 1;  // key tiles and value tiles on their way
  static constexpr int kBlocksPerSm = kHeadDim == 64 ? 4 : kHeadDim == 256 ? 2 : 3;

  struct Smem {
    alignas(1024)
        uint8_t query[kQuerySlots == 0 ? 1 : kQuerySlots][kQuerySlots == 0 ? 1024 : kTileBytes];
    alignas(1024) uint8_t key[kSlots][kTileBytes];
    alignas(1024) uint8_t value[kSlots][kTileBytes];
    Row row[3];
    uint64_t key_full[kSlots], value_full[kSlots], query_full[2];
  };
  static_assert(kBlocksPerSm * (sizeof(Smem) + 1024) <= 228 * 1024, "a multiprocessor has 228 KiB");
};

}  // namespace seer::kernels::sm90
