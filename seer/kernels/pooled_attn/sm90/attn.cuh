#pragma once
// Dense attention with the pooled map for sm_90a, with wgmma and bulk tensor copies. The overlap of
// products and softmax follows FlashAttention-3 (arXiv 2407.08608).
//
// A thread block, one on each multiprocessor, takes tiles of 128 queries of one head as long as there
// are any, the longest first. A thread loads; two consumer warpgroups have 64 of the queries each,
// share the keys and values, and take turns at the tensor cores:
//
//   producer      next tile ─► q;  k[i], v[i - 1] ─► rings, last keys first (the masked ones)
//   consumer      k[i]     ─► S = q k^T ─────────► maxima ─► workspace
//                 v[i - 1] ─► O = keep * O + P v ┐  │
//                                                └──┴─► P = softmax(S), while O += P v still runs
//   end of tile   o, lse; maxima and lse ─► map
//
// The maxima of a tile, [keys / 64][64] for each consumer, lie in the thread block's part of the
// workspace: a row's weights are known only when its last key was seen.

#include <algorithm>

#include "seer/kernels/cuda_check.h"
#include "seer/kernels/pooled_attn/map_rows.h"
#include "seer/kernels/pooled_attn/map_tile.cuh"
#include "seer/kernels/pooled_attn/sm90/consumer.cuh"
#include "seer/kernels/tensor_map.h"

namespace seer::kernels::pooled_sm90 {

struct Maps {
  CUtensorMap q, k, v;
};

// Hardware barriers; 0 is __syncthreads().
enum NamedBarrier { kTurn = 1, kWarpgroup = kTurn + kConsumers };

// The n-th use of a ring.
template <int kStages>
struct Place {
  uint32_t slot, parity;
  __device__ __forceinline__ explicit Place(uint32_t n)
      // The same in all lanes, and so the compiler sees it.
      : slot(__shfl_sync(kAllLanes, n % kStages, 0)), parity(n / kStages & 1) {}
};

template <int kChunks, int kRows>
__device__ __forceinline__ void load_tile(uint8_t* tile, const CUtensorMap* map, uint64_t* full,
                                          int head, int token, ptx::CacheHint hint) {
  const uint32_t bar = ptx::smem_address(full), to = ptx::smem_address(tile);
#pragma unroll
  for (int c = 0; c < kChunks; ++c) {
#pragma unroll
    for (int row = 0; row < kRows; row += kRow) {
      ptx::tma_load_3d(to + (c * kRows + row) * 128, map, bar, 64 * c, head, token + row, hint);
    }
  }
}

// One thread.
template <class Config>
__device__ __forceinline__ void produce(const PooledAttnParams& p, const Maps& maps,
                                        const TileOrder& order, typename Config::Smem& smem) {
  constexpr int kStages = Config::kStages, kTileBytes = Config::kChunks * Config::kKeyChunk;
  auto* const counter = static_cast<unsigned long long*>(p.workspace);
  const auto end = static_cast<unsigned long long>(order.places * order.heads);
  uint32_t keys = 0, values = 0;  // loaded so far

  const auto load = [&](uint8_t(&ring)[kStages][kTileBytes], uint64_t(&full)[kStages],
                        uint64_t(&empty)[kStages], uint32_t n, const CUtensorMap* map, int head,
                        int token) {
    const uint32_t slot = n % kStages;
    // Its last readers are done.
    if (n >= kStages) ptx::mbarrier_wait(ptx::smem_address(&empty[slot]), (n / kStages & 1) ^ 1);
    ptx::mbarrier_expect_tx(ptx::smem_address(&full[slot]), kTileBytes);
    load_tile<Config::kChunks, kKeys>(ring[slot], map, &full[slot], head, token,
                                      ptx::CacheHint::kNormal);
  };

  unsigned long long at = atomicAdd(counter, 1ull);
  for (uint32_t n = 0;; ++n) {
    QueryTile tile;
    tile.num_queries = 0;
    while (at < end && tile.num_queries <= 0) {
      tile = QueryTile::find<kQueries, kKeys>(p, order, static_cast<int64_t>(at));
      at = atomicAdd(counter, 1ull);  // arrives while this tile is loaded
    }
    const uint32_t query_full = ptx::smem_address(&smem.query_full);
    if (n > 0) ptx::mbarrier_wait(ptx::smem_address(&smem.query_empty), (n & 1) ^ 1);
    smem.tile[n & 1] = tile;
    if (tile.num_queries <= 0) {  // no more
      ptx::mbarrier_arrive(query_full);
      return;
    }
    ptx::mbarrier_expect_tx(query_full, sizeof(smem.query));
    for (int w = 0; w < kConsumers; ++w) {
      load_tile<Config::kChunks, kRow>(smem.query[w], &maps.q, &smem.query_full, tile.head,
                                       tile.q_begin + w * kRow, ptx::CacheHint::kEvictFirst);
    }
    for (int i = 0; i <= tile.num_steps; ++i) {
      const int token = tile.k_begin + (tile.num_steps - 1 - i) * kKeys;
      if (i < tile.num_steps) {
        load(smem.key, smem.key_full, smem.key_empty, keys++, &maps.k, tile.kv_head, token);
      }
      if (i > 0) {
        load(smem.value, smem.value_full, smem.value_empty, values++, &maps.v, tile.kv_head,
             token + kKeys);
      }
    }
  }
}

// Values of tokens behind a sequence's end become zero, so that nothing of them (NaN, say) gets
// through a weight of zero. `first`: the first such row of the tile. Each consumer does it for
// itself: both write the same.
template <class Config>
__device__ __forceinline__ void clear_rows(uint8_t* tile, int first, int w) {
  constexpr int kPieces = Config::kHeadDim / 8;  // of 16 bytes
#pragma unroll 1
  for (int i = threadIdx.x % 128; i < (kKeys - first) * kPieces; i += 128) {
    const int row = first + i / kPieces, c = i % kPieces;
    *reinterpret_cast<uint4*>(tile + c / 8 * Config::kKeyChunk + row * 128 + c % 8 * 16) =
        make_uint4(0, 0, 0, 0);
  }
  ptx::fence_proxy_async();
  ptx::named_barrier_sync(kWarpgroup + w, 128);  // the zeros are in place for all four warps
}

// The queries of this tile are read, and tile[] of the one before is.
template <class Smem>
__device__ __forceinline__ void release_queries(Smem& smem, int lane) {
  if (lane == 0) ptx::mbarrier_arrive(ptx::smem_address(&smem.query_empty));
}

// All steps of a tile for consumer w; `keys`: tiles of keys (and of values) read before.
template <class Config>
__device__ __forceinline__ void attend(Consumer<Config>& x, typename Config::Smem& smem, int w,
                                       const QueryTile& tile, uint32_t keys) {
  using P = Place<Config::kStages>;
  const int num_steps = tile.num_steps, k_len = tile.k_len;
  const int first_limit = tile.limit + tile.slope * w * kRow;
  const int row = x.warp * 16 + (x.lane >> 2);
  const int limit0 = min(first_limit + tile.slope * row, k_len - 1);
  const int limit1 = min(first_limit + tile.slope * (row + 8), k_len - 1);
  const auto await = [](uint64_t(&full)[Config::kStages], const P& at) {
    ptx::mbarrier_wait(ptx::smem_address(&full[at.slot]), at.parity);
  };
  const auto release = [&](uint64_t(&empty)[Config::kStages], const P& at) {
    if (x.lane == 0) ptx::mbarrier_arrive(ptx::smem_address(&empty[at.slot]));
  };
  const auto weigh = [&](int step) {
    const int key0 = step * kKeys;
    if (key0 + kKeys - 1 > min(first_limit, k_len - 1)) x.mask(limit0 - key0, limit1 - key0);
    x.softmax(step);
  };

  // 1. The last keys. Only their tile can reach past the sequence's end.
  {
    const P at(keys);
    await(smem.key_full, at);
    x.start_scores(ptx::smem_address(smem.key[at.slot]));
    x.template await_scores<0>();
    release(smem.key_empty, at);
    weigh(num_steps - 1);
    x.pack_weights();
    if (k_len < num_steps * kKeys) {
      await(smem.value_full, at);
      clear_rows<Config>(smem.value[at.slot], k_len - (num_steps - 1) * kKeys, w);
    }
  }
  // 2. Scores of the next keys together with the output of these.
  for (int i = 1; i < num_steps; ++i) {
    const P at(keys + i), before(keys + i - 1);
    await(smem.key_full, at);
    ptx::named_barrier_sync(kTurn + w, 256);  // this consumer's turn
    x.start_scores(ptx::smem_address(smem.key[at.slot]));
    x.scale_output();
    await(smem.value_full, before);
    x.start_output(ptx::smem_address(smem.value[before.slot]));
    ptx::named_barrier_arrive(kTurn + 1 - w, 256);  // the other's
    x.template await_scores<1>();
    release(smem.key_empty, at);
    weigh(num_steps - 1 - i);
    x.await_output_after_weights(&smem.sums[threadIdx.x]);
    release(smem.value_empty, before);
    x.pack_weights();
  }
  // 3. The output of the first keys. The producer may load the next queries.
  release_queries(smem, x.lane);
  const P at(keys + num_steps - 1);
  x.scale_output();
  await(smem.value_full, at);
  x.start_output(ptx::smem_address(smem.value[at.slot]));
  x.await_output();
  release(smem.value_empty, at);
}

template <class Config>
__device__ __forceinline__ void consume(const PooledAttnParams& p, typename Config::Smem& smem,
                                        int w) {
  float* const maxima = reinterpret_cast<float*>(static_cast<char*>(p.workspace) + kCounterBytes) +
                        (int64_t{blockIdx.x} * kConsumers + w) * maxima_per_consumer(p);
  Consumer<Config> x(p.scale, ptx::smem_address(smem.query[w]), maxima);
  if (w == 1) ptx::named_barrier_arrive(kTurn, 256);  // the first turn is consumer 0's
  uint32_t keys = 0;
  for (uint32_t n = 0;; ++n) {
    ptx::mbarrier_wait(ptx::smem_address(&smem.query_full), n & 1);
    const QueryTile& tile = smem.tile[n & 1];
    if (tile.num_queries <= 0) return;
    const int num_steps = tile.num_steps;
    x.begin();
    if (num_steps > 0) {
      attend<Config>(x, smem, w, tile, keys);
    } else {
      release_queries(smem, x.lane);
    }
    keys += num_steps;

    const int num_queries = tile.num_queries - w * kRow, head = tile.head;
    const int64_t map_head = head / (p.num_q_heads / p.num_map_heads);
    const int64_t map_row = map_head * p.num_rows + tile.map_row + (p.block_q == kRow ? w : 0);
    x.store(p, head, tile.q_begin + w * kRow, num_queries, smem.lse[w]);
    ptx::named_barrier_sync(kWarpgroup + w, 128);  // all maxima and log-sum-exps are there
    if (num_queries > 0) {
      const BlockMaxima m{maxima, smem.lse[w], num_steps * (kKeys / kRow), p.block_k / kRow,
                          x.scale_log2};
      write_row(m, p.map + map_row * p.num_blocks, p.num_blocks, map_rows_are_shared(p, kRow));
    }
    ptx::named_barrier_sync(kWarpgroup + w, 128);  // nobody reads the maxima of this tile
  }
}

template <class Config>
__global__ void __launch_bounds__(kThreads, 1)
    attention(const __grid_constant__ Maps maps, const __grid_constant__ PooledAttnParams p,
              const __grid_constant__ TileOrder order) {
  extern __shared__ __align__(1024) uint8_t smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::Smem*>(smem_bytes);
  if (threadIdx.x == 0) {
    const auto init = [](uint64_t& bar, int count) {
      ptx::mbarrier_init(ptx::smem_address(&bar), count);
    };
    init(smem.query_full, 1);
    init(smem.query_empty, 4 * kConsumers);  // their warps
    for (int i = 0; i < Config::kStages; ++i) {
      init(smem.key_full[i], 1);
      init(smem.value_full[i], 1);
      init(smem.key_empty[i], 4 * kConsumers);
      init(smem.value_empty[i], 4 * kConsumers);
    }
    ptx::fence_mbarrier_init();
  }
  __syncthreads();  // barriers are ready
  if (threadIdx.x / 128 == kConsumers) {
    ptx::give_registers<Config::kProducerRegisters>();
    if (threadIdx.x % 128 == 0) produce<Config>(p, maps, order, smem);
  } else {
    ptx::take_registers<Config::kConsumerRegisters>();
    consume<Config>(p, smem, static_cast<int>(threadIdx.x / 128));
  }
}

template <class Element, int kHeadDim>
void run_attention(const PooledAttnParams& p, void* stream) {
  using C = Config<Element, kHeadDim>;
  const TileOrder order = tile_order(p, kQueries);
  const int64_t slot = slot_bytes(p), bytes = p.workspace_bytes - kCounterBytes;
  SEER_CHECK(bytes >= slot, "pooled_attn: the workspace has ", p.workspace_bytes, " bytes, want ",
             kCounterBytes + slot,
             " at least, and those of pooled_attn_workspace() for full speed");
  const int64_t slots = slot ? bytes / slot : num_places(order);
  const int64_t blocks = std::min(std::min(num_places(order), slots), int64_t{1} << 16);
  // Without a key no tile of them is loaded: the maps only have to be valid.
  const int64_t keys = std::max<int64_t>(p.total_k, 1);
  const Maps maps{tensor_map(p.q, p.total_q, p.num_q_heads, p.head_dim, p.dtype),
                  tensor_map(p.total_k ? p.k : p.q, keys, p.num_kv_heads, p.head_dim, p.dtype),
                  tensor_map(p.total_k ? p.v : p.q, keys, p.num_kv_heads, p.head_dim, p.dtype)};
  SEER_CUDA_CHECK(cudaMemsetAsync(p.workspace, 0, sizeof(unsigned long long),
                                  static_cast<cudaStream_t>(stream)));
  launch(attention<C>, dim3(static_cast<unsigned>(blocks)), kThreads, sizeof(typename C::Smem),
         stream, maps, p, order);
}

}  // namespace seer::kernels::pooled_sm90
