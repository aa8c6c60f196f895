#pragma once
// What the two kernels of the backward share: products of tiles (attention/sm90/tile.cuh, which also
// says how accumulators lie). A warpgroup computes 64 x 64 scores and their gradients at a time.

#include "seer/kernels/attention/sm90/maps.h"
#include "seer/kernels/attention/sm90/tile.cuh"
#include "seer/kernels/block_sparse_attn/backward/columns.cuh"

namespace seer::kernels::sm90::backward {

using namespace kernels::backward;
using Params = BlockSparseAttnBackwardParams;

using attention::kAllLanes;
using attention::kWarpgroup;
constexpr int kStatsBytes = 2 * kTile * 4;

// A tile of 64 tokens: chunks of 64 columns, rows of 128 bytes.
template <class Element_, int kHeadDim_>
struct TileConfig {
  using Element = Element_;
  static constexpr int kHeadDim = kHeadDim_;
  static constexpr int kColumns = (kHeadDim + 63) / 64 * 64;
  static constexpr int kChunkBytes = kTile * 128;
  static constexpr int kTileBytes = kChunkBytes * (kColumns / 64);

  // Starts the copy of a tile. One thread.
  static __device__ __forceinline__ void load(uint8_t* tile, const CUtensorMap* map, uint64_t* full,
                                              int head, int token, ptx::CacheHint hint) {
    attention::load_tile<kTile, kColumns>(tile, map, full, head, token, hint);
  }
  // attention::clear_rows()
  static __device__ __forceinline__ void clear(uint8_t* tile, int first, int barrier) {
    attention::clear_rows<kTile, kColumns>(tile, first, barrier);
  }
};

struct BackwardMaps : attention::Maps {
  CUtensorMap grad_o;
};

// c = A B^T over the features, started: tiles of 64 tokens each.
template <class Config>
__device__ __forceinline__ void start_scores(float (&c)[32], uint32_t a_tile, uint32_t b_tile) {
  const uint32_t a = ptx::wgmma_descriptor(a_tile, 16), b = ptx::wgmma_descriptor(b_tile, 16);
#pragma unroll
  for (int k = 0; k < Config::kHeadDim / 16; ++k) {
    const uint32_t offset = ((k >> 2) * Config::kChunkBytes + (k & 3) * 32) / 16;
    ptx::wgmma_ss_n64<typename Config::Element>(c, a + offset, b + offset, k > 0);
  }
}

// c += a B, started; a: 64 x 64, B: a tile of 64 tokens.
template <class Config>
__device__ __forceinline__ void start_output(float (&c)[Config::kHeadDim / 2],
                                             const uint32_t (&a)[4][4], uint32_t tile) {
  const uint32_t b = ptx::wgmma_descriptor(tile, Config::kChunkBytes);
#pragma unroll
  for (int k = 0; k < 4; ++k) {
    ptx::wgmma_rs<typename Config::Element, true>(c, a[k], b + k * 2048 / 16, 1);
  }
}

// As operand A of a product.
template <class Element>
__device__ __forceinline__ void pack_operand(uint32_t (&a)[4][4], const float (&c)[32]) {
#pragma unroll
  for (int i = 0; i < 16; ++i) a[i / 4][i % 4] = ptx::pack<Element>(c[2 * i], c[2 * i + 1]);
}

// Rows of 64 tokens to a tensor, times `factor`; `left` of them exist.
template <class Config>
__device__ __forceinline__ void store_rows(const float (&c)[Config::kHeadDim / 2], float factor,
                                           const StridedOut& to, int64_t token, int head,
                                           int left) {
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = threadIdx.x / 32 % 4 * 16 + threadIdx.x % 32 / 4 + 8 * r;
    attention::store_row<typename Config::Element, Config::kHeadDim>(
        to, head, token + row, row < left, r, factor, [&](int i) { return &c[i]; });
  }
}

// Zeros for 64 tokens, of which `left` exist. By a warp.
template <class Config>
__device__ __forceinline__ void store_zeros(const StridedOut& to, int64_t token, int head,
                                            int left) {
  constexpr int kChunks = Config::kHeadDim / 8;  // of 16 bytes
#pragma unroll 1
  for (int i = threadIdx.x % 32; i < min(left, kTile) * kChunks; i += 32) {
    auto* const out = static_cast<typename Config::Element*>(to.data) +
                      (token + i / kChunks) * to.token_stride + head * to.head_stride +
                      i % kChunks * 8;
    *reinterpret_cast<uint4*>(out) = make_uint4(0, 0, 0, 0);
  }
}

// A warp has read the slot that `bar` belongs to. One lane speaks for all.
__device__ __forceinline__ void arrive(uint64_t* bar) {
  __syncwarp();
  if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(ptx::smem_address(bar));
}

// What a slot says beside its tile. Read by the lane that releases the slot, for its warp.
__device__ __forceinline__ int read_for_all(const int* x) {
  return __shfl_sync(kAllLanes, threadIdx.x % 32 == 0 ? *x : 0, 0);
}

// The barriers of one consumer: of the slots of its ring, which `kReleases` arrivals release, and of what
// it works on, which all of its threads read. By one thread.
template <int kReleases, int kSlots>
__device__ __forceinline__ void init_barriers(uint64_t (&full)[kSlots], uint64_t (&empty)[kSlots],
                                              uint64_t& work_full, uint64_t& work_empty) {
  for (int i = 0; i < kSlots; ++i) {
    ptx::mbarrier_init(ptx::smem_address(&full[i]), 1);
    ptx::mbarrier_init(ptx::smem_address(&empty[i]), kReleases);
  }
  ptx::mbarrier_init(ptx::smem_address(&work_full), 1);
  ptx::mbarrier_init(ptx::smem_address(&work_empty), kWarpgroup);
  ptx::fence_mbarrier_init();
}

// For each consumer c: init(c) in a thread, then load(c) in a warp of the first warpgroup and compute(c) in
// a warpgroup of its own.
template <class Config, class Init, class Load, class Compute>
__device__ __forceinline__ void split_roles(const Init& init, const Load& load,
                                            const Compute& compute) {
  const int warp = __shfl_sync(kAllLanes, threadIdx.x / 32, 0);
  if (threadIdx.x < Config::kConsumers) init(static_cast<int>(threadIdx.x));
  __syncthreads();  // barriers are ready
  if (warp < kWarpgroup / 32) {
    ptx::give_registers<Config::kLoaderRegisters>();
    if (warp < Config::kConsumers) load(warp);
  } else {
    ptx::take_registers<Config::kConsumerRegisters>();
    compute(warp / (kWarpgroup / 32) - 1);
  }
}

// A place in a ring of kSlots slots: both sides go through them in the same order.
template <int kSlots>
struct Place {
  int slot = 0;
  uint32_t parity = 0;
  __device__ __forceinline__ void next() {
    if (++slot == kSlots) slot = 0, parity ^= 1;
  }
};

}  // namespace seer::kernels::sm90::backward
