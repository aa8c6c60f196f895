#pragma once
// Block-sparse attention forward for sm_90a, with wgmma and bulk tensor copies.
//
// A thread block stays on its multiprocessor. It has two to four consumer warpgroups, each of which
// computes one row at a time (64 queries of one head), and for each of them a loader warp and a ring
// of tiles in shared memory. Consumers know nothing of each other and hide each other's waits.
//
//   loader w     next row, its list ──► q, k[list[0]], v[list[0]], k[list[1]], ... ──► ring w
//   consumer w   ring w ──► S = q k^T ─► mask ─► P ─► O = keep * O + P v
//
// The loader runs ahead across the end of a row: queries and first tiles of the next row travel
// while this one ends.

#include <algorithm>

#include "seer/kernels/block_sparse_attn/sm90/dispatch.h"
#include "seer/kernels/block_sparse_attn/sm90/row_state.cuh"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/tensor_map.h"

namespace seer::kernels::sm90 {

struct Maps {
  CUtensorMap q, k, v;
};

// A place in a ring; both sides count along.
template <int kSlots>
struct Place {
  uint32_t slot = 0, parity = 0;
  __device__ __forceinline__ void next() {
    if (++slot == kSlots) slot = 0, parity ^= 1;
  }
};

template <class Config>
struct Loader {
  typename Config::Signals& signals;
  typename Config::Channel& channel;
  const bool is_leader;  // the one thread that starts copies
  Place<Config::kSlots> place;

  __device__ __forceinline__ void load(uint8_t* tile, const CUtensorMap* map, uint64_t* full,
                                       int head, int token, ptx::CacheHint hint) {
    const uint32_t bar = ptx::smem_address(full), dst = ptx::smem_address(tile);
    ptx::mbarrier_expect_tx(bar, Config::kTileBytes);
#pragma unroll
    for (int c = 0; c < Config::kColumns / 64; ++c) {
      ptx::tma_load_3d(dst + c * Config::kChunkBytes, map, bar, 64 * c, head, token, hint);
    }
  }

  // The next tile of the ring. key0: what the consumer is told of it.
  __device__ __forceinline__ void push(const CUtensorMap* map, int head, int token, int key0,
                                       ptx::CacheHint hint) {
    ptx::mbarrier_wait(ptx::smem_address(&signals.empty[place.slot]), place.parity ^ 1);
    if (is_leader) {
      signals.key0[place.slot] = key0;
      load(channel.tile[place.slot], map, &signals.full[place.slot], head, token, hint);
    }
    place.next();
  }
};

template <class Config>
__device__ __forceinline__ void load_rows(const Maps& maps, const BlockSparseAttnParams& p,
                                          typename Config::Smem& smem, int w) {
  const int lane = threadIdx.x % 32;
  auto& signals = smem.signals[w];
  Loader<Config> loader{signals, smem.channel[w], lane == 0, {}};
  RowFinder finder(p, blockIdx.x + gridDim.x * w, gridDim.x * Config::kConsumers);
  const int shift = p.lists.block_k == kTile ? 0 : 1;  // tiles of a listed block, log2
  uint32_t query_parity = 1;
  finder.find<Config>(&signals.row[0]);
  int32_t window = 0;  // 32 entries of the list, one per lane
  if (lane << shift < signals.row[0].num_steps) window = signals.row[0].list[lane];

  for (int r = 0;; r = r == 2 ? 0 : r + 1) {
    const Row& row = signals.row[r];
    Row* const next = &signals.row[r == 2 ? 0 : r + 1];
    const int num_steps = row.num_steps;
    if (num_steps == kNoRow) {  // the consumer is told, in place of queries
      if constexpr (Config::kQueriesInRegisters) {
        ptx::mbarrier_wait(ptx::smem_address(&signals.empty[loader.place.slot]),
                           loader.place.parity ^ 1);
        if (loader.is_leader)
          ptx::mbarrier_arrive(ptx::smem_address(&signals.full[loader.place.slot]));
      } else {
        ptx::mbarrier_wait(ptx::smem_address(&signals.query_empty), query_parity);
        if (loader.is_leader) ptx::mbarrier_arrive(ptx::smem_address(&signals.query_full));
      }
      return;
    }
    const int32_t* const list = row.list;
    const int kv_head = row.kv_head, k_begin = row.k_begin;
    int32_t ahead = 0;  // the 32 entries after `window`
    if ((32 + lane) << shift < num_steps) ahead = list[32 + lane];

    if constexpr (Config::kQueriesInRegisters) {
      loader.push(&maps.q, row.head, row.q_token, 0, ptx::CacheHint::kEvictFirst);
    } else {
      ptx::mbarrier_wait(ptx::smem_address(&signals.query_empty), query_parity);
      query_parity ^= 1;
      if (loader.is_leader) {
        loader.load(loader.channel.query, &maps.q, &signals.query_full, row.head, row.q_token,
                    ptx::CacheHint::kEvictFirst);
      }
    }
#pragma unroll 1
    for (int i = 0; i < num_steps; ++i) {
      const int block = i >> shift;
      if (i > 0 && (block & 31) == 0 && (i & ((1 << shift) - 1)) == 0) {
        window = ahead;
        const int entry = block + 32 + lane;
        if (entry << shift < num_steps) ahead = list[entry];
      }
      const int key0 =
          ((__shfl_sync(kAllLanes, window, block & 31) << shift) + (i & ((1 << shift) - 1))) *
          kTile;
      loader.push(&maps.k, kv_head, k_begin + key0, key0, ptx::CacheHint::kNormal);
      loader.push(&maps.v, kv_head, k_begin + key0, key0, ptx::CacheHint::kNormal);
      if (i == 0) {
        finder.take();
        finder.find<Config>(next);
      }
    }
    if (lane << shift < next->num_steps) window = next->list[lane];
  }
}

// Values of tokens behind a sequence's end become zero, so that nothing of them (NaN, say) gets
// through a weight of zero. `first`: the first such row of the tile.
template <class Config>
__device__ __forceinline__ void clear_rows(uint8_t* tile, int first, int thread, int barrier) {
  constexpr int kChunks = Config::kColumns / 8;  // of 16 bytes
#pragma unroll 1
  for (int i = thread; i < (kTile - first) * kChunks; i += kWarpgroup) {
    const int row = first + i / kChunks, c = i % kChunks;
    *reinterpret_cast<uint4*>(tile + c / 8 * Config::kChunkBytes + row * 128 + c % 8 * 16) =
        make_uint4(0, 0, 0, 0);
  }
  ptx::fence_proxy_async();
  ptx::named_barrier_sync(barrier, kWarpgroup);  // the zeros are in place for all warps
}

template <class Config>
__device__ __forceinline__ void compute_rows(const BlockSparseAttnParams& p,
                                             typename Config::Smem& smem, int w) {
  auto& signals = smem.signals[w];
  auto& channel = smem.channel[w];
  Place<Config::kSlots> place;
  uint32_t query_parity = 0;
  RowState<Config> state(p.scale);
  const auto wait_full = [&] {
    ptx::mbarrier_wait(ptx::smem_address(&signals.full[place.slot]), place.parity);
  };
  const auto release = [&](uint64_t* empty) {
    if (state.lane == 0) ptx::mbarrier_arrive(ptx::smem_address(empty));
  };
  for (int r = 0;; r = r == 2 ? 0 : r + 1) {
    const Row& row = signals.row[r];
    // 1. Queries.
    if constexpr (Config::kQueriesInRegisters) {
      wait_full();
      if (row.num_steps == kNoRow) return;
      state.begin(ptx::smem_address(channel.tile[place.slot]));
      __syncwarp();
      release(&signals.empty[place.slot]);
      place.next();
    } else {
      ptx::mbarrier_wait(ptx::smem_address(&signals.query_full), query_parity);
      query_parity ^= 1;
      if (row.num_steps == kNoRow) return;
      state.begin(ptx::smem_address(channel.query));
    }
    // 2. The steps of the list.
    const int num_steps = row.num_steps, k_len = row.k_len, first_limit = row.limit;
    const int limit = first_limit + state.warp * 16 + (state.lane >> 2);
#pragma unroll 1
    for (int i = 0; i < num_steps; ++i) {
      wait_full();
      const int key0 = signals.key0[place.slot];
      state.compute_scores(ptx::smem_address(channel.tile[place.slot]));
      release(&signals.empty[place.slot]);
      if constexpr (!Config::kQueriesInRegisters) {
        if (i == num_steps - 1) release(&signals.query_empty);
      }
      place.next();

      if (key0 + kTile - 1 > first_limit || key0 + kTile > k_len) {
        state.mask(min(limit, k_len - 1) - key0, min(limit + 8, k_len - 1) - key0);
      }
      state.update_max();

      wait_full();
      if (k_len - key0 < kTile) {
        clear_rows<Config>(channel.tile[place.slot], max(k_len - key0, 0),
                           state.warp * 32 + state.lane, 1 + w);
      }
      state.add_output(ptx::smem_address(channel.tile[place.slot]));
      release(&signals.empty[place.slot]);
      place.next();
    }
    // 3. The row is done; loads of the next are under way.
    state.store(p, row);
  }
}

template <class Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    block_sparse_fwd(const __grid_constant__ Maps maps,
                     const __grid_constant__ BlockSparseAttnParams p) {
  extern __shared__ __align__(1024) uint8_t smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::Smem*>(smem_bytes);
  const int warp = __shfl_sync(kAllLanes, threadIdx.x / 32, 0);
  if (threadIdx.x < Config::kConsumers) {
    auto& signals = smem.signals[threadIdx.x];
    for (int i = 0; i < Config::kSlots; ++i) {
      ptx::mbarrier_init(ptx::smem_address(&signals.full[i]), 1);
      ptx::mbarrier_init(ptx::smem_address(&signals.empty[i]), 4);  // warps
    }
    ptx::mbarrier_init(ptx::smem_address(&signals.query_full), 1);
    ptx::mbarrier_init(ptx::smem_address(&signals.query_empty), 4);
    ptx::fence_mbarrier_init();
  }
  __syncthreads();  // barriers are ready
  if (warp < 4) {
    ptx::lower_registers<Config::kLoaderRegisters>();
    if (warp < Config::kConsumers) load_rows<Config>(maps, p, smem, warp);
  } else {
    ptx::raise_registers<Config::kConsumerRegisters>();
    compute_rows<Config>(p, smem, warp / 4 - 1);
  }
}

template <class Element, int kHeadDim>
void run_block_sparse_fwd(const BlockSparseAttnParams& p, void* stream) {
  using Config = ForwardConfig<Element, kHeadDim>;
  const Maps maps{tensor_map(p.q, p.total_q, p.num_q_heads, p.head_dim, p.dtype),
                  // Without a key no list names one: the maps only have to be valid.
                  tensor_map(p.total_k ? p.k : p.q, p.total_k ? p.total_k : 1, p.num_kv_heads,
                             p.head_dim, p.dtype),
                  tensor_map(p.total_k ? p.v : p.q, p.total_k ? p.total_k : 1, p.num_kv_heads,
                             p.head_dim, p.dtype)};
  const unsigned rows = num_parts(p) * p.num_q_heads * rows_per_head(p);
  const unsigned grid = std::min(rows, static_cast<unsigned>(num_multiprocessors()));
  launch(block_sparse_fwd<Config>, grid, Config::kThreads, sizeof(typename Config::Smem), stream,
         maps, p);
}

}  // namespace seer::kernels::sm90
