#pragma once
// Sizes of the sm80 forward kernel and its shared memory, for one element type and head size.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "seer/kernels/block_sparse_attn/params.h"
#include "seer/kernels/device/tile_sm80.cuh"

namespace seer::kernels::sm80 {

using bf16 = __nv_bfloat16;
using f16 = __half;

constexpr int kQueries = 64;                  // of a thread block
constexpr int kThreads = kQueries / 16 * 32;  // a warp has 16 queries

template <class Element_, int kHeadDim_>
struct ForwardConfig {
  using Element = Element_;
  static constexpr int kHeadDim = kHeadDim_;

  // With 256 columns the accumulator takes half of the registers, and two thread blocks share an
  // A100's multiprocessor only with short tiles of keys and values, one of each.
  static constexpr bool kIsWide = kHeadDim > 128;
  static constexpr int kKeys = kIsWide ? 32 : 64;  // of a step
  static constexpr bool kQueriesInRegisters = !kIsWide;
  static constexpr int kBlocksPerSm = kHeadDim == 64 ? 4 : kHeadDim == 96 ? 3 : 2;

  using QueryTile = device::SmemTile<Element, kQueries, kHeadDim>;
  using KeyTile = device::SmemTile<Element, kKeys, kHeadDim>;
  // Queries on their way to registers pass through the tile that the second step's keys take.
  struct NarrowSmem {
    KeyTile k[2], v[2];
    __device__ QueryTile& query() { return k[1]; }
  };
  struct WideSmem {
    KeyTile k[1], v[1];
    QueryTile q;
    __device__ QueryTile& query() { return q; }
  };
  using Smem = std::conditional_t<kIsWide, WideSmem, NarrowSmem>;
  static_assert(sizeof(Smem) <= 99 * 1024, "sm_86 and sm_89 give a thread block 99 KiB");
  static_assert(kBlocksPerSm * (sizeof(Smem) + 1024) <= 164 * 1024, "an A100 has 164 KiB");
};

// Starts the kernel. Instances: seer_instances() in CMakeLists.txt.
template <class Element, int kHeadDim>
void run_forward(const BlockSparseAttnParams& p, void* stream);

}  // namespace seer::kernels::sm80
