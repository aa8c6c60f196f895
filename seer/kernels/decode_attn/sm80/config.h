#pragma once
// Sizes of the sm80 decode kernel and its shared memory, for one element type and head size.

#include <algorithm>
#include <type_traits>

#include "seer/kernels/attention/instance.h"
#include "seer/kernels/decode_attn/params.h"
#include "seer/kernels/device/tile_sm80.cuh"

namespace seer::kernels::decode_sm80 {

constexpr int kRows = 16;  // (query, head of the group) pairs of a thread block: one mma.sync
constexpr int kKeys = 16;  // of a warp's step

template <class Element_, int kHeadDim_>
struct DecodeConfig {
  using Element = Element_;
  static constexpr int kHeadDim = kHeadDim_;

  // With 256 columns the accumulator takes half of the registers: queries stay in shared memory.
  static constexpr bool kIsWide = kHeadDim > 128;
  static constexpr int kWarps = kIsWide ? 2 : 4;
  static constexpr int kThreads = kWarps * 32;
  // Bytes that travel are what hides the latency of memory: 50 KiB or more of a multiprocessor.
  static constexpr int kStages = kIsWide ? 2 : kHeadDim == 128 ? 3 : 4;
  static constexpr int kBlocksPerSm = kHeadDim == 64 ? 3 : 2;

  using Tile = device::SmemTile<Element, kKeys, kHeadDim>;
  struct Stage {
    Tile k, v;
  };
  struct Queries {
    device::SmemTile<Element, kRows, kHeadDim> tile;
  };
  struct InRegisters {};
  struct Smem : std::conditional_t<kIsWide, Queries, InRegisters> {
    Stage stages[kWarps][kStages];
  };
  // What the warps found, over the stages when all have ended.
  struct Found {
    float max[kWarps][kRows], sum[kWarps][kRows];
    float o[kWarps][kRows][kHeadDim];
  };
  static constexpr size_t kSmemBytes = std::max(sizeof(Smem), sizeof(Found));
  static_assert(kSmemBytes <= 99 * 1024, "sm_86 and sm_89 give a thread block 99 KiB");
};

// Combines the pieces of every query.
void combine_pieces(const DecodeAttnParams& p, void* stream);

}  // namespace seer::kernels::decode_sm80
