#pragma once
// Block-sparse attention forward for sm_90a, with wgmma and bulk tensor copies.
//
// A thread block is one warpgroup with one row: 64 queries of one head. Two to four of them share a
// multiprocessor and hide each other's waits. It walks the key tiles of its list:
//
//   thread 0   q ──────────────► registers or shared memory (once)
//              k[list[i]] ─────► key slot i % 2 ──► S = q k^T ─► mask ─► P
//              v[list[i]] ─────► value slot i % 2 ─────────────────────► O = keep * O + P v
//
// A slot is filled again as soon as it has been read, two steps ahead; the list three.

#include "seer/kernels/block_sparse_attn/sm90/dispatch.h"
#include "seer/kernels/block_sparse_attn/sm90/row_state.cuh"
#include "seer/kernels/block_sparse_attn/sm90/rows.cuh"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/tensor_map.h"

namespace seer::kernels::sm90 {

struct Maps {
  CUtensorMap q, k, v;
};

template <class Config>
__device__ __forceinline__ void load_tile(uint8_t* tile, const CUtensorMap* map, uint64_t* full,
                                          int head, int token, ptx::CacheHint hint) {
  const uint32_t bar = ptx::smem_address(full), dst = ptx::smem_address(tile);
  ptx::mbarrier_expect_tx(bar, Config::kTileBytes);
#pragma unroll
  for (int c = 0; c < Config::kColumns / 64; ++c) {
    ptx::tma_load_3d(dst + c * Config::kChunkBytes, map, bar, 64 * c, head, token, hint);
  }
}

// Values of tokens behind a sequence's end become zero, so that nothing of them (NaN, say) gets
// through a weight of zero. `first`: the first such row of the tile.
template <class Config>
__device__ __forceinline__ void clear_rows(uint8_t* tile, int first) {
  constexpr int kChunks = Config::kColumns / 8;  // of 16 bytes
#pragma unroll 1
  for (int i = threadIdx.x; i < (kTile - first) * kChunks; i += kThreads) {
    const int row = first + i / kChunks, c = i % kChunks;
    *reinterpret_cast<uint4*>(tile + c / 8 * Config::kChunkBytes + row * 128 + c % 8 * 16) =
        make_uint4(0, 0, 0, 0);
  }
  ptx::fence_proxy_async();
  __syncthreads();  // the zeros are in place for all warps
}

template <class Config>
__global__ void __launch_bounds__(kThreads, Config::kBlocksPerSm)
    block_sparse_fwd(const __grid_constant__ Maps maps,
                     const __grid_constant__ BlockSparseAttnParams p) {
  constexpr int kSlots = Config::kSlots;
  constexpr bool kInRegisters = Config::kQueriesInRegisters;
  extern __shared__ __align__(1024) uint8_t smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::Smem*>(smem_bytes);
  const bool is_leader = threadIdx.x == 0;

  // 1. The row, and barriers.
  const Row row(p, blockIdx.x);
  if (row.q_left <= 0) return;  // the second half of a row of 128 queries
  if (row.num_steps == 0) return store_nothing<Config>(p, row);
  if (is_leader) {
    for (int i = 0; i < kSlots; ++i) {
      ptx::mbarrier_init(ptx::smem_address(&smem.key_full[i]), 1);
      ptx::mbarrier_init(ptx::smem_address(&smem.value_full[i]), 1);
    }
    ptx::mbarrier_init(ptx::smem_address(&smem.query_full), 1);
    ptx::fence_mbarrier_init();
  }
  __syncthreads();  // barriers are ready

  const auto load_key = [&](int slot, int tile) {
    load_tile<Config>(smem.key[slot], &maps.k, &smem.key_full[slot], row.kv_head,
                      row.k_begin + tile * kTile, ptx::CacheHint::kNormal);
  };
  const auto load_value = [&](int slot, int tile) {
    load_tile<Config>(smem.value[slot], &maps.v, &smem.value_full[slot], row.kv_head,
                      row.k_begin + tile * kTile, ptx::CacheHint::kNormal);
  };

  // 2. First loads, queries.
  const int num_steps = row.num_steps;
  int tile[3];  // of this step and the two after it
#pragma unroll
  for (int i = 0; i < 3; ++i) tile[i] = i < num_steps ? row.key_tile(i) : 0;
  uint8_t* const query_tile = kInRegisters ? smem.value[kSlots - 1] : smem.query;
  if (is_leader) {
    load_tile<Config>(query_tile, &maps.q, &smem.query_full, row.head, row.q_token,
                      ptx::CacheHint::kEvictFirst);
#pragma unroll
    for (int i = 0; i < kSlots; ++i) {
      if (i < num_steps) load_key(i, tile[i]);
      if (i < num_steps && (!kInRegisters || i < kSlots - 1)) load_value(i, tile[i]);
    }
  }
  RowState<Config> state(p.scale);
  ptx::mbarrier_wait(ptx::smem_address(&smem.query_full), 0);
  state.begin(ptx::smem_address(query_tile));
  if constexpr (kInRegisters) {
    __syncthreads();  // queries are in registers
    if (is_leader && num_steps >= kSlots) load_value(kSlots - 1, tile[kSlots - 1]);
  }

  // 3. The steps of the list.
  const int limit = row.limit + state.warp * 16 + (state.lane >> 2), k_len = row.k_len;
  for (int i = 0; i < num_steps; ++i) {
    const int slot = i % kSlots, parity = i / kSlots & 1, key0 = tile[0] * kTile;
    const int ahead = i + 3 < num_steps ? row.key_tile(i + 3) : 0;

    ptx::mbarrier_wait(ptx::smem_address(&smem.key_full[slot]), parity);
    state.compute_scores(ptx::smem_address(smem.key[slot]));
    __syncthreads();  // the keys are read
    if (is_leader && i + kSlots < num_steps) load_key(slot, tile[kSlots]);

    if (key0 + kTile - 1 > row.limit || key0 + kTile > k_len) {
      state.mask(min(limit, k_len - 1) - key0, min(limit + 8, k_len - 1) - key0);
    }
    state.softmax();

    ptx::mbarrier_wait(ptx::smem_address(&smem.value_full[slot]), parity);
    if (k_len - key0 < kTile) clear_rows<Config>(smem.value[slot], max(k_len - key0, 0));
    state.add_output(ptx::smem_address(smem.value[slot]));
    __syncthreads();  // the values are read
    if (is_leader && i + kSlots < num_steps) load_value(slot, tile[kSlots]);
    tile[0] = tile[1];
    tile[1] = tile[2];
    tile[2] = ahead;
  }
  state.store(p, row);
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
  const int64_t rows = p.lists.num_rows * (p.lists.block_q / kTile) * p.num_q_heads;
  launch(block_sparse_fwd<Config>, dim3(static_cast<unsigned>(rows)), kThreads,
         sizeof(typename Config::Smem), stream, maps, p);
}

}  // namespace seer::kernels::sm90
