#pragma once
// Block-sparse attention forward for sm_90a, with wgmma and bulk tensor copies.
//
// A thread block is one warpgroup; two to four share a multiprocessor and hide each other's waits.
// It walks a queue of rows (64 queries of one head), and for each the key tiles of its list:
//
//   warp 3     next row ────────────────► smem.row        (during the first step of a row)
//   thread 0   q, k[list[i]] ───────────► ring of key tiles ─┐   each slot is filled again as
//              v[list[i]] ──────────────► ring of value tiles┤   soon as it has been read
//   all        S = q k^T ─► mask ─► P ─────────────────────► O = keep * O + P v
//
// The loads run ahead across the end of a row: queries and first tiles of the next row travel while
// this one ends.

#include "seer/kernels/block_sparse_attn/sm90/dispatch.h"
#include "seer/kernels/block_sparse_attn/sm90/row_state.cuh"
#include "seer/kernels/block_sparse_attn/sm90/rows.cuh"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/tensor_map.h"

namespace seer::kernels::sm90 {

struct Maps {
  CUtensorMap q, k, v;
};

// What thread 0 does: fills the rings, in the order in which tiles will be read. An "item" of the
// key ring is a key tile, or the queries of a row where they go on to registers.
template <class Config>
struct Loader {
  static constexpr int kSlots = Config::kSlots;
  static constexpr int kLead = Config::kQueriesInRegisters ? 1 : 0;  // items before a row's keys

  const Maps& maps;
  typename Config::Smem& smem;
  const int tiles_per_block;  // 64-key tiles of a listed block
  uint32_t keys_filled = 0, values_filled = 0;
  int key_at = 0, value_at = 0;  // next items, counted from the current row's first

  __device__ __forceinline__ void load(uint8_t* tile, const CUtensorMap* map, uint64_t* full,
                                       int head, int token, ptx::CacheHint hint) {
    const uint32_t bar = ptx::smem_address(full), dst = ptx::smem_address(tile);
    ptx::mbarrier_expect_tx(bar, Config::kTileBytes);
#pragma unroll
    for (int c = 0; c < Config::kColumns / 64; ++c) {
      ptx::tma_load_3d(dst + c * Config::kChunkBytes, map, bar, 64 * c, head, token, hint);
    }
  }

  __device__ __forceinline__ void load_queries(const Row& row, uint8_t* tile, uint64_t* full) {
    load(tile, &maps.q, full, row.head, row.q_token, ptx::CacheHint::kEvictFirst);
  }

  __device__ __forceinline__ static int key_tile(const Row& row, int step, int tiles_per_block) {
    return tiles_per_block == 1
               ? row.list[step]
               : row.list[step / tiles_per_block] * tiles_per_block + step % tiles_per_block;
  }

  // Fills key slots that are free after `read` items; `next` is null while it is not known.
  __device__ __forceinline__ void fill_keys(uint32_t read, const Row& row, const Row* next) {
    while (keys_filled < read + kSlots) {
      const Row* of = &row;
      int at = key_at;
      if (at >= row.num_steps + kLead) {
        at -= row.num_steps + kLead;
        of = next;
        if (!next || next->num_steps == 0 || at >= next->num_steps + kLead) return;
      }
      const uint32_t slot = keys_filled % kSlots;
      if (at < kLead) {
        load_queries(*of, smem.key[slot], &smem.key_full[slot]);
      } else {
        load(smem.key[slot], &maps.k, &smem.key_full[slot], of->kv_head,
             of->k_begin + key_tile(*of, at - kLead, tiles_per_block) * kTile,
             ptx::CacheHint::kNormal);
      }
      ++keys_filled;
      ++key_at;
    }
  }

  __device__ __forceinline__ void fill_values(uint32_t read, const Row& row, const Row* next) {
    while (values_filled < read + kSlots) {
      const Row* of = &row;
      int at = value_at;
      if (at >= row.num_steps) {
        at -= row.num_steps;
        of = next;
        if (!next || at >= next->num_steps) return;
      }
      const uint32_t slot = values_filled % kSlots;
      load(smem.value[slot], &maps.v, &smem.value_full[slot], of->kv_head,
           of->k_begin + key_tile(*of, at, tiles_per_block) * kTile, ptx::CacheHint::kNormal);
      ++values_filled;
      ++value_at;
    }
  }

  __device__ __forceinline__ void end_row(const Row& row) {
    key_at -= row.num_steps + kLead;
    value_at -= row.num_steps;
  }
};

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

// `rows_per_block`: length of a thread block's queue.
template <class Config>
__global__ void __launch_bounds__(kThreads, Config::kBlocksPerSm)
    block_sparse_fwd(const __grid_constant__ Maps maps,
                     const __grid_constant__ BlockSparseAttnParams p, int rows_per_block) {
  constexpr int kSlots = Config::kSlots, kQuerySlots = Config::kQuerySlots;
  constexpr bool kInRegisters = Config::kQueriesInRegisters;
  extern __shared__ __align__(1024) uint8_t smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::Smem*>(smem_bytes);
  const bool is_leader = threadIdx.x == 0, is_finder = threadIdx.x / 32 == 3;

  // 1. Barriers, and the first row.
  RowQueue rows(p, rows_per_block);
  if (is_finder) rows.pop<Config>(p, &smem.row[0]);
  if (is_leader) {
    for (int i = 0; i < kSlots; ++i) {
      ptx::mbarrier_init(ptx::smem_address(&smem.key_full[i]), 1);
      ptx::mbarrier_init(ptx::smem_address(&smem.value_full[i]), 1);
    }
    for (int i = 0; i < kQuerySlots; ++i) {
      ptx::mbarrier_init(ptx::smem_address(&smem.query_full[i]), 1);
    }
    ptx::fence_mbarrier_init();
  }
  __syncthreads();  // barriers and the first row are ready

  Loader<Config> loader{maps, smem, p.lists.block_k / kTile};
  RowState<Config> state(p.scale);
  uint32_t keys_read = 0, values_read = 0;
  if (is_leader && smem.row[0].num_steps > 0) {
    if constexpr (!kInRegisters) {
      loader.load_queries(smem.row[0], smem.query[0], &smem.query_full[0]);
    }
    loader.fill_keys(0, smem.row[0], nullptr);
    loader.fill_values(0, smem.row[0], nullptr);
  }

  for (int j = 0; smem.row[j % 3].num_steps > 0; ++j) {
    const Row& row = smem.row[j % 3];
    const Row& next = smem.row[(j + 1) % 3];
    const int num_steps = row.num_steps, first_limit = row.limit, k_len = row.k_len;
    const int limit = first_limit + state.warp * 16 + (state.lane >> 2);

    // 2. Queries.
    if constexpr (kInRegisters) {
      const uint32_t slot = keys_read % kSlots;
      ptx::mbarrier_wait(ptx::smem_address(&smem.key_full[slot]), keys_read / kSlots & 1);
      state.begin(ptx::smem_address(smem.key[slot]));
      __syncthreads();  // queries are in registers
      ++keys_read;
      if (is_leader) loader.fill_keys(keys_read, row, nullptr);
    } else {
      const int slot = j % kQuerySlots;
      ptx::mbarrier_wait(ptx::smem_address(&smem.query_full[slot]), j / kQuerySlots & 1);
      state.begin(ptx::smem_address(smem.query[slot]));
    }

    // 3. The steps of the list.
    for (int i = 0; i < num_steps; ++i) {
      const int key0 = Loader<Config>::key_tile(row, i, loader.tiles_per_block) * kTile;
      if (i == 0 && is_finder) rows.pop<Config>(p, &smem.row[(j + 1) % 3]);

      const uint32_t key_slot = keys_read % kSlots;
      ptx::mbarrier_wait(ptx::smem_address(&smem.key_full[key_slot]), keys_read / kSlots & 1);
      state.compute_scores(ptx::smem_address(smem.key[key_slot]));
      __syncthreads();  // the keys are read, the next row is known
      ++keys_read;
      if (is_leader) {
        if constexpr (!kInRegisters) {
          const int slot = (j + 1) % kQuerySlots;
          if (i == (kQuerySlots == 2 ? 0 : num_steps - 1) && next.num_steps > 0) {
            loader.load_queries(next, smem.query[slot], &smem.query_full[slot]);
          }
        }
        loader.fill_keys(keys_read, row, &next);
      }

      if (key0 + kTile - 1 > first_limit || key0 + kTile > k_len) {
        state.mask(min(limit, k_len - 1) - key0, min(limit + 8, k_len - 1) - key0);
      }
      state.softmax();

      const uint32_t value_slot = values_read % kSlots;
      ptx::mbarrier_wait(ptx::smem_address(&smem.value_full[value_slot]), values_read / kSlots & 1);
      if (k_len - key0 < kTile) clear_rows<Config>(smem.value[value_slot], max(k_len - key0, 0));
      state.add_output(ptx::smem_address(smem.value[value_slot]));
      __syncthreads();  // the values are read
      ++values_read;
      if (is_leader) loader.fill_values(values_read, row, &next);
    }

    // 4. The row is done; loads of the next are under way.
    state.store(p, row);
    loader.end_row(row);
  }
}

template <class Element, int kHeadDim>
void run_block_sparse_fwd(const BlockSparseAttnParams& p, void* stream, int rows_per_block) {
  using Config = ForwardConfig<Element, kHeadDim>;
  const Maps maps{tensor_map(p.q, p.total_q, p.num_q_heads, p.head_dim, p.dtype),
                  // Without a key no list names one: the maps only have to be valid.
                  tensor_map(p.total_k ? p.k : p.q, p.total_k ? p.total_k : 1, p.num_kv_heads,
                             p.head_dim, p.dtype),
                  tensor_map(p.total_k ? p.v : p.q, p.total_k ? p.total_k : 1, p.num_kv_heads,
                             p.head_dim, p.dtype)};
  const int64_t rows = p.lists.num_rows * (p.lists.block_q / kTile) * p.num_q_heads;
  const int64_t blocks = (rows + rows_per_block - 1) / rows_per_block;
  launch(block_sparse_fwd<Config>, dim3(static_cast<unsigned>(blocks)), kThreads,
         sizeof(typename Config::Smem), stream, maps, p, rows_per_block);
}

}  // namespace seer::kernels::sm90
