#pragma once
// Sizes of the sm80 kernel and its shared memory, for one element type and head size.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "seer/kernels/device/tile_sm80.cuh"
#include "seer/kernels/pooled_attn/params.h"
#include "seer/kernels/pooled_attn/sm80/sizes.h"

namespace seer::kernels::pooled_sm80 {

using bf16 = __nv_bfloat16;
using f16 = __half;

template <class Element_, int kHeadDim_>
struct Config {
  using Element = Element_;
  static constexpr int kHeadDim = kHeadDim_;

  static constexpr bool kIsWide = kHeadDim > kWidestNarrow;
  static constexpr int kKeys = step_keys(kHeadDim);
  static constexpr bool kQueriesInRegisters = !kIsWide;
  static constexpr int kBlocksPerSm = blocks_per_sm(kHeadDim);

  using QuerySmem = device::SmemTile<Element, kQueries, kHeadDim>;
  using KeyTile = device::SmemTile<Element, kKeys, kHeadDim>;
  // Queries on their way to registers pass through the tile that the second step's keys take.
  struct NarrowSmem {
    KeyTile k[2], v[2];
    alignas(16) float lse[kQueries];
    __device__ QuerySmem& query() { return k[1]; }
  };
  struct WideSmem {
    KeyTile k[1], v[1];
    QuerySmem q;
    alignas(16) float lse[kQueries];
    __device__ QuerySmem& query() { return q; }
  };
  using Smem = std::conditional_t<kIsWide, WideSmem, NarrowSmem>;
  static_assert(sizeof(Smem) <= 99 * 1024, "sm_86 and sm_89 give a thread block 99 KiB");
  static_assert(kBlocksPerSm * (sizeof(Smem) + 1024) <= 164 * 1024, "an A100 has 164 KiB");
};

// Starts the kernel. Instances: seer_instances() in CMakeLists.txt.
template <class Element, int kHeadDim>
void run_attention(const PooledAttnParams& p, void* stream);

}  // namespace seer::kernels::pooled_sm80
