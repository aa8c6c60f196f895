#pragma once
// Gradients of queries on sm_90a: row by row of the lists, as the forward goes.
//
//   loader w     q, grad_o of a row ─► k, v of its blocks ─► ring w
//   consumer w   S = q k^T, dP = grad_o v^T ─► dS = P (dP - delta) ─► dq += dS k
//
// Two consumer warpgroups (three at D = 64), each with a loader warp, rows and a ring of its own; they
// hide each other's waits.

#include "seer/kernels/block_sparse_attn/backward/sm90/tiles.cuh"
#include "seer/kernels/cuda_check.h"

namespace seer::kernels::sm90::backward {

// 64 queries of one head and the blocks of their list.
struct RowWork : QueryTile {
  const int32_t* list;
  int num_steps;  // key tiles; kNoRow: there is no further row
  int row_tile;
};
constexpr int kNoRow = -1;

template <class Element_, int kHeadDim_>
struct RowsConfig : TileConfig<Element_, kHeadDim_> {
  using Base = TileConfig<Element_, kHeadDim_>;
  static constexpr int kConsumers = kHeadDim_ == 64 ? 3 : 2;
  static constexpr int kSlots = kHeadDim_ == 64 ? 6 : 5;
  static constexpr int kThreads = kWarpgroup * (1 + kConsumers);
  static constexpr int kLoaderRegisters = kHeadDim_ == 64 ? 32 : 40;
  static constexpr int kConsumerRegisters = kHeadDim_ == 64 ? 160 : 232;
  struct Channel {
    alignas(1024) uint8_t query[Base::kTileBytes];
    alignas(1024) uint8_t grad[Base::kTileBytes];
    alignas(1024) uint8_t tile[kSlots][Base::kTileBytes];
  };
  struct Signals {
    uint64_t full[kSlots], empty[kSlots], row_full, row_empty;
    int key0[kSlots];
    RowWork row;
  };
  struct Smem {
    Channel channel[kConsumers];
    Signals signals[kConsumers];
  };
  static_assert(sizeof(Smem) <= 227 * 1024, "a thread block may have 227 KiB");
};

// Row tile `unit` of all heads, the last row of a head first. False: there is nothing to compute.
template <class Config>
__device__ __forceinline__ bool describe_row(const Params& p, const Workspace& w, int unit,
                                             RowWork* work) {
  const int tiles_per_row = p.lists.block_q / kTile;
  const int head = static_cast<int>(unit / w.row_tiles);
  const int tile = static_cast<int>(w.row_tiles - 1 - unit % w.row_tiles);
  const int row = tile / tiles_per_row, list_head = head / (p.num_q_heads / p.lists.num_heads);
  const int64_t at = list_head * p.lists.num_rows + row;
  const int64_t begin = p.lists.begin[at];
  const int count = p.lists.count[at];
  const int seq = last_begun(p.lists.cu_rows, p.num_seqs, row);
  const int first = static_cast<int>(tile - p.lists.cu_rows[seq] * tiles_per_row) * kTile;
  const QueryTile queries = QueryTile::of(p, head, seq, first, kTile);
  if (queries.num_queries <= 0) return false;
  if (count == 0) {
    store_zeros<Config>(p.grad_q, queries.q_begin, head, queries.num_queries);
    return false;
  }
  if (threadIdx.x % 32 == 0) {
    *work = {queries, p.lists.list + begin, count * (p.lists.block_k / kTile), tile};
  }
  __syncwarp();
  return true;
}

template <class Config>
__device__ __forceinline__ void load_rows(const BackwardMaps& maps, const Params& p,
                                          const Workspace& w, typename Config::Smem& smem, int c) {
  auto& signals = smem.signals[c];
  auto& channel = smem.channel[c];
  const int lane = threadIdx.x % 32;
  const int tiles_per_block = p.lists.block_k / kTile;
  attention::Dealer<true> dealer(&w.counters->next_row, blockIdx.x + gridDim.x * c,
                                 gridDim.x * Config::kConsumers,
                                 static_cast<unsigned>(p.num_q_heads * w.row_tiles));
  Place<Config::kSlots> place;
  uint32_t row_parity = 1;
  for (; !dealer.is_over(); dealer.next()) {
    // The consumer has read the row before.
    ptx::mbarrier_wait(ptx::smem_address(&signals.row_empty), row_parity);
    if (!describe_row<Config>(p, w, static_cast<int>(dealer.unit()), &signals.row)) continue;
    row_parity ^= 1;
    const RowWork row = signals.row;
    if (lane == 0) {
      ptx::mbarrier_expect_tx(ptx::smem_address(&signals.row_full), 2 * Config::kTileBytes);
      Config::load(channel.query, &maps.q, &signals.row_full, row.head, row.q_begin,
                   ptx::CacheHint::kEvictFirst);
      Config::load(channel.grad, &maps.grad_o, &signals.row_full, row.head, row.q_begin,
                   ptx::CacheHint::kEvictFirst);
    }
    int window = 0;
#pragma unroll 1
    for (int i = 0; i < row.num_steps; ++i) {
      const int block = i / tiles_per_block;
      if (block % 32 == 0 && i % tiles_per_block == 0) {
        const int at = block + lane;
        window = at * tiles_per_block < row.num_steps ? row.list[at] : 0;
      }
      const int key0 =
          (__shfl_sync(kAllLanes, window, block % 32) * tiles_per_block + i % tiles_per_block) *
          kTile;
      for (int kv = 0; kv < 2; ++kv, place.next()) {
        uint64_t* const full = &signals.full[place.slot];
        ptx::mbarrier_wait(ptx::smem_address(&signals.empty[place.slot]), place.parity ^ 1);
        if (lane == 0) {
          signals.key0[place.slot] = key0;
          ptx::mbarrier_expect_tx(ptx::smem_address(full), Config::kTileBytes);
          Config::load(channel.tile[place.slot], kv ? &maps.v : &maps.k, full, row.kv_head,
                       row.key_token(key0), ptx::CacheHint::kNormal);
        }
      }
    }
  }
  ptx::mbarrier_wait(ptx::smem_address(&signals.row_empty), row_parity);
  if (lane == 0) {
    signals.row.num_steps = kNoRow;
    ptx::mbarrier_arrive(ptx::smem_address(&signals.row_full));
  }
}

template <class Config>
__device__ __forceinline__ void compute_rows(const Params& p, const Workspace& w,
                                             typename Config::Smem& smem, int c) {
  using Element = typename Config::Element;
  auto& signals = smem.signals[c];
  auto& channel = smem.channel[c];
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  const float scale_log2 = p.scale * 1.44269504f;
  const uint32_t query = ptx::smem_address(channel.query), grad = ptx::smem_address(channel.grad);
  Place<Config::kSlots> place;
  uint32_t row_parity = 0;
  float rS[32], rDP[32], rDQ[Config::kHeadDim / 2];
  uint32_t rDS[4][4];
  for (;; row_parity ^= 1) {
    ptx::mbarrier_wait(ptx::smem_address(&signals.row_full), row_parity);
    const RowWork row = signals.row;
    if (row.num_steps == kNoRow) return;
    const float* const stats =
        w.stats + (row.head * w.row_tiles + row.row_tile) * 2 * kTile + warp * 16 + (lane >> 2);
    const float lse[2] = {stats[0], stats[8]}, delta[2] = {stats[kTile], stats[kTile + 8]};
#pragma unroll
    for (float& x : rDQ) x = 0.f;
#pragma unroll 1
    for (int i = 0; i < row.num_steps; ++i) {
      const int k_slot = place.slot;
      ptx::mbarrier_wait(ptx::smem_address(&signals.full[k_slot]), place.parity);
      place.next();
      const int v_slot = place.slot;
      const int key0 = read_for_all(&signals.key0[k_slot]);
      uint8_t* const keys = channel.tile[k_slot];
      uint8_t* const values = channel.tile[v_slot];
      const bool is_tail = row.k_len - key0 < kTile;
      if (is_tail) {
        ptx::mbarrier_wait(ptx::smem_address(&signals.full[v_slot]), place.parity);
        Config::clear(keys, max(row.k_len - key0, 0), 1 + c);
        Config::clear(values, max(row.k_len - key0, 0), 1 + c);
      }
      ptx::fence_registers(rS);
      ptx::fence_registers(rDP);
      ptx::wgmma_fence();
      start_scores<Config>(rS, query, ptx::smem_address(keys));
      ptx::wgmma_commit();
      ptx::mbarrier_wait(ptx::smem_address(&signals.full[v_slot]), place.parity);
      place.next();
      ptx::wgmma_fence();
      start_scores<Config>(rDP, grad, ptx::smem_address(values));
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();  // scores are complete
      ptx::fence_registers(rS);
#pragma unroll
      for (int j = 0; j < 32; ++j) {
        rS[j] = ptx::exp2_approx(fmaf(rS[j], scale_log2, -lse[j >> 1 & 1]));
      }
      if (is_tail || key0 + kTile - 1 > row.limit) {
        const int limit = row.limit + warp * 16 + (lane >> 2);
        const int last[2] = {min(limit, row.k_len - 1) - key0 - (lane & 3) * 2,
                             min(limit + 8, row.k_len - 1) - key0 - (lane & 3) * 2};
#pragma unroll
        for (int j = 0; j < 32; ++j) {
          if (j / 4 * 8 + (j & 1) > last[j >> 1 & 1]) rS[j] = 0.f;
        }
      }
      ptx::wgmma_wait<0>();  // their gradients, too
      ptx::fence_registers(rDP);
      arrive(&signals.empty[v_slot]);
#pragma unroll
      for (int j = 0; j < 32; ++j) rDP[j] = rS[j] * (rDP[j] - delta[j >> 1 & 1]);
      pack_operand<Element>(rDS, rDP);
      ptx::fence_registers(rDQ);
      ptx::wgmma_fence();
      start_output<Config>(rDQ, rDS, ptx::smem_address(keys));
      ptx::wgmma_commit();
      ptx::wgmma_wait<0>();  // the keys are read
      ptx::fence_registers(rDQ);
      arrive(&signals.empty[k_slot]);
    }
    ptx::mbarrier_arrive(ptx::smem_address(&signals.row_empty));
    store_rows<Config>(rDQ, p.scale, p.grad_q, row.q_begin, row.head, row.num_queries);
  }
}

template <class Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    backward_rows(const __grid_constant__ BackwardMaps maps, const __grid_constant__ Params p,
                  const __grid_constant__ Workspace w) {
  extern __shared__ __align__(1024) uint8_t smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::Smem*>(smem_bytes);
  const auto init = [&](int c) {
    auto& s = smem.signals[c];
    init_barriers<kWarpgroup / 32>(s.full, s.empty, s.row_full, s.row_empty);
  };
  split_roles<Config>(
      init, [&](int c) { load_rows<Config>(maps, p, w, smem, c); },
      [&](int c) { compute_rows<Config>(p, w, smem, c); });
}

}  // namespace seer::kernels::sm90::backward
