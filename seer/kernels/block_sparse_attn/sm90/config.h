#pragma once
// Sizes of the sm90 forward and its shared memory, for one element type and head size.

#include "seer/kernels/attention/instance.h"
#include "seer/kernels/attention/sm90/maps.h"
#include "seer/kernels/attention/sm90/tile.cuh"
#include "seer/kernels/block_sparse_attn/params.h"
#include "seer/kernels/block_sparse_attn/sm90/parts.h"

namespace seer::kernels::sm90 {

using attention::kAllLanes;
using attention::kWarpgroup;
using attention::Maps;

// kTile queries of one head, and the steps that their list (or one piece of it) asks for.
struct ListedTile : QueryTile {
  const int32_t* list;
  int num_steps;  // key tiles; kNoTile: there is no further tile
  unsigned out;   // its number among those of all pieces and heads
};
constexpr int kNoTile = -1;

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
  static constexpr int kTiles = 4;  // being stored, computed, loaded, looked up
  struct Signals {
    uint64_t full[kSlots], empty[kSlots], query_full, query_empty;
    int key0[kSlots];  // first key of the tile, counted from the sequence's
    ListedTile tile[kTiles];
  };
  struct Smem {
    Channel channel[kConsumers];
    Signals signals[kConsumers];
  };
  static_assert(sizeof(Smem) <= 227 * 1024, "a thread block may have 227 KiB");
};

// Combines the pieces' results where lists were cut (p.num_parts > 1).
void combine_parts(const BlockSparseAttnParams& p, void* stream);

}  // namespace seer::kernels::sm90
