#pragma once
// Sizes of the sm90 forward and its shared memory, for one element type and head size.

#include <cstddef>
#include <cstdint>

namespace seer::kernels::sm90 {

constexpr int kTile = 64;        // queries of a row, keys of a step
constexpr int kWarpgroup = 128;  // threads

// A row: 64 queries of one head, and the steps that its list (or one piece of it) asks for.
struct Row {
  const int32_t* list;
  int num_steps;  // key tiles; kNoRow: there is no further row
  int head, kv_head;
  int q_token;  // of the packed tokens: the row's first query
  int q_left;   // queries from there to the end of the sequence
  int k_begin, k_len;
  int limit;     // last key that the first query sees
  unsigned out;  // number of the row among those of all pieces and heads
};
constexpr int kNoRow = -1;

template <class Element_, int kHeadDim_>
struct ForwardConfig {
  using Element = Element_;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kColumns = (kHeadDim + 63) / 64 * 64;  // in shared memory
  static constexpr int kChunkBytes = kTile * 128;             // 64 columns, rows of 128 bytes
  static constexpr int kTileBytes = kChunkBytes * (kColumns / 64);

  // Queries in registers leave room for another tile on its way. With 64 columns ptxas 13.0.88
  // gives their registers to the weights although the next step reads them again; 256 columns leave
  // no registers.
  static constexpr bool kQueriesInRegisters = kHeadDim == 96 || kHeadDim == 128;
  static constexpr int kConsumers = kHeadDim == 64 ? 4 : kHeadDim == 256 ? 2 : 3;
  static constexpr int kSlots = kHeadDim == 256 ? 2 : 4;  // tiles on their way, per consumer
  static constexpr int kThreads = kWarpgroup * (1 + kConsumers);
  // Of a thread. Together they are what the thread block gets at launch.
  static constexpr int kLoaderRegisters = kHeadDim == 96 || kHeadDim == 128 ? 32 : 40;
  static constexpr int kConsumerRegisters = kHeadDim == 64 ? 104 : kHeadDim == 256 ? 232 : 160;

  // Where lists turn out to name every block (dense.cuh): registers of a thread of a computing
  // warpgroup, of the loading one, and of those that have nothing to do.
  static constexpr bool kCanBeDense = kHeadDim == 64 || kHeadDim == 128;
  static constexpr int kDenseRegisters = kHeadDim == 64 ? 192 : 224;
  static constexpr int kDenseLoaderRegisters = 40, kIdleRegisters = 24;

  // What a consumer warpgroup and the warp that loads for it share.
  struct Channel {
    alignas(1024) uint8_t tile[kSlots][kTileBytes];  // a ring
    alignas(1024) uint8_t query[kQueriesInRegisters ? 1024 : kTileBytes];
  };
  static constexpr int kRows = 4;  // being stored, computed, loaded, looked up
  struct Signals {
    uint64_t full[kSlots], empty[kSlots], query_full, query_empty;
    int key0[kSlots];  // first key of the tile, counted from the sequence's
    Row row[kRows];
  };
  struct Smem {
    Channel channel[kConsumers];
    Signals signals[kConsumers];
  };
  static_assert(sizeof(Smem) <= 227 * 1024, "a thread block may have 227 KiB");
};

}  // namespace seer::kernels::sm90
