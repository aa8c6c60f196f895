#pragma once
// Sizes of sm80 kernels that walk over tiles of keys, and their shared memory, for one element type
// and head size.

#include <type_traits>

#include "seer/kernels/attention/instance.h"
#include "seer/kernels/device/tile_sm80.cuh"

namespace seer::kernels::attention {

constexpr int kQueries = 64;                  // of a thread block
constexpr int kThreads = kQueries / 16 * 32;  // a warp has 16 queries

// With 256 columns the accumulator takes half of the registers, and two thread blocks share an
// A100's multiprocessor only with short tiles of keys and values, one of each.
constexpr bool is_wide(int head_dim) {
  return head_dim > 128;
}
constexpr int step_keys(int head_dim) {
  return is_wide(head_dim) ? 32 : 64;
}

template <class Element_, int kHeadDim_>
struct Config {
  using Element = Element_;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr bool kIsWide = is_wide(kHeadDim);
  static constexpr int kKeys = step_keys(kHeadDim);  // of a step
  static constexpr bool kQueriesInRegisters = !kIsWide;

  using Queries = device::SmemTile<Element, kQueries, kHeadDim>;
  using KeyTile = device::SmemTile<Element, kKeys, kHeadDim>;
  // Queries on their way to registers pass through the tile that the second step's keys take.
  struct NarrowTiles {
    KeyTile k[2], v[2];
    __device__ Queries& query() { return k[1]; }
  };
  struct WideTiles {
    KeyTile k[1], v[1];
    Queries q;
    __device__ Queries& query() { return q; }
  };
  using Tiles = std::conditional_t<kIsWide, WideTiles, NarrowTiles>;
};

// Whether so many thread blocks with this much shared memory fit a multiprocessor.
template <class Smem>
constexpr bool fits(int blocks_per_sm) {
  return sizeof(Smem) <= 99 * 1024 &&  // of a thread block on sm_86 and sm_89
         blocks_per_sm * (sizeof(Smem) + 1024) <= 164 * 1024;  // of an A100
}

}  // namespace seer::kernels::attention
