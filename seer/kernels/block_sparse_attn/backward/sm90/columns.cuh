#pragma once
// Gradients of keys and values on sm_90a: column by column, through the transposed lists.
//
//   loader w     k, v of a column ─► q, grad_o and their statistics of the rows that list it ─► ring w
//   consumer w   S^T = k q^T, dP^T = v grad_o^T ─► dv += P^T grad_o, dk += dS^T q
//
// Heads of a group and rows come in a fixed order and are added up in registers, so that the same bits
// come out in every run. Columns that many rows list are split (workspace.h).

#include "seer/kernels/block_sparse_attn/backward/sm90/column_loader.cuh"
#include "seer/kernels/cuda_check.h"

namespace seer::kernels::sm90::backward {

template <class Config>
__device__ __forceinline__ void compute_columns(const Params& p, const Workspace& w,
                                                typename Config::Smem& smem, int c) {
  using Element = typename Config::Element;
  constexpr int kD = Config::kHeadDim;
  auto& signals = smem.signals[c];
  auto& channel = smem.channel[c];
  const int warp = threadIdx.x / 32 % 4, lane = threadIdx.x % 32;
  const float scale_log2 = p.scale * 1.44269504f;
  const uint32_t key = ptx::smem_address(channel.key), value = ptx::smem_address(channel.value);
  Place<Config::kSlots> place;
  uint32_t column_parity = 0;
  float rS[32], rDP[32], rDK[kD / 2], rDV[kD / 2];
  uint32_t rA[4][4];
  for (;; column_parity ^= 1) {
    ptx::mbarrier_wait(ptx::smem_address(&signals.column_full), column_parity);
    // Read where it is needed: registers are what this kernel has least of.
    const ColumnWork& work = signals.work[column_parity];
    if (work.part == kNoColumn) return;
#pragma unroll
    for (int i = 0; i < kD / 2; ++i) rDK[i] = rDV[i] = 0.f;
#pragma unroll 1
    for (;; place.next()) {
      const int slot = place.slot;
      ptx::mbarrier_wait(ptx::smem_address(&signals.full[slot]), place.parity);
      const int query0 = read_for_all(&signals.query0[slot]);
      if (query0 == kNoQuery) break;
      auto& tiles = channel.slot[slot];
      const float2* const stats = reinterpret_cast<const float2*>(channel.stats[slot]) + (lane & 3);
      if (work.tile.q_len - query0 < kTile) {
        Config::clear(tiles.query, work.tile.q_len - query0, 1 + c);
        Config::clear(tiles.grad, work.tile.q_len - query0, 1 + c);
      }
      const uint32_t query = ptx::smem_address(tiles.query), grad = ptx::smem_address(tiles.grad);
      ptx::fence_registers(rS);
      ptx::fence_registers(rDP);
      ptx::wgmma_fence();
      start_scores<Config>(rS, key, query);
      ptx::wgmma_commit();
      start_scores<Config>(rDP, value, grad);
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();  // scores are complete
      ptx::fence_registers(rS);
#pragma unroll
      for (int j = 0; j < 32; j += 4) {
        const float2 lse = stats[j];
        rS[j] = ptx::exp2_approx(fmaf(rS[j], scale_log2, -lse.x));
        rS[j + 1] = ptx::exp2_approx(fmaf(rS[j + 1], scale_log2, -lse.y));
        rS[j + 2] = ptx::exp2_approx(fmaf(rS[j + 2], scale_log2, -lse.x));
        rS[j + 3] = ptx::exp2_approx(fmaf(rS[j + 3], scale_log2, -lse.y));
      }
      // The first query that sees the tile's first key, counted from the row's first.
      const int first_seen = work.tile.k_first - work.tile.offset - query0;
      if (first_seen + kTile - 1 > 0) {
        const int first = first_seen + warp * 16 + (lane >> 2) - (lane & 3) * 2;
#pragma unroll
        for (int j = 0; j < 32; ++j) {
          if (j / 4 * 8 + (j & 1) < first + (j & 2) * 4) rS[j] = 0.f;
        }
      }
      pack_operand<Element>(rA, rS);
      ptx::fence_registers(rDV);
      ptx::wgmma_fence();
      start_output<Config>(rDV, rA, grad);
      ptx::wgmma_commit();
      ptx::wgmma_wait<1>();  // gradients of weights are complete
      ptx::fence_registers(rDP);
#pragma unroll
      for (int j = 0; j < 32; j += 4) {
        const float2 delta = stats[kTile / 2 + j];
        rDP[j] = rS[j] * (rDP[j] - delta.x);
        rDP[j + 1] = rS[j + 1] * (rDP[j + 1] - delta.y);
        rDP[j + 2] = rS[j + 2] * (rDP[j + 2] - delta.x);
        rDP[j + 3] = rS[j + 3] * (rDP[j + 3] - delta.y);
      }
      ptx::wgmma_wait<0>();  // the weights are read
      ptx::fence_registers(rDV);
      pack_operand<Element>(rA, rDP);
      ptx::fence_registers(rDK);
      ptx::wgmma_fence();
      start_output<Config>(rDK, rA, query);
      ptx::wgmma_commit();
      // Every lane releases the statistics that it has read, while the product runs; a warp's first
      // lane waits with that, as it speaks for the tiles, too.
      if (lane != 0) ptx::mbarrier_arrive(ptx::smem_address(&signals.empty[slot]));
      ptx::wgmma_wait<0>();  // queries and their gradients are read
      ptx::fence_registers(rDK);
      arrive(&signals.empty[slot]);
    }
    ptx::mbarrier_arrive(ptx::smem_address(&signals.empty[place.slot]));
    place.next();
    const ColumnTile& tile = work.tile;
    if (work.part < 0) {
      const int kv_head = tile.kv_head, k_token = tile.k_token, k_left = tile.k_left;
      ptx::mbarrier_arrive(ptx::smem_address(&signals.column_empty));
      store_rows<Config>(rDK, p.scale, p.grad_k, k_token, kv_head, k_left);
      store_rows<Config>(rDV, 1.f, p.grad_v, k_token, kv_head, k_left);
    } else {
      float* const to = w.partials + int64_t{work.part} * 2 * kTile * kD +
                        (warp * 16 + (lane >> 2)) * kD + (lane & 3) * 2;
      ptx::mbarrier_arrive(ptx::smem_address(&signals.column_empty));
#pragma unroll
      for (int i = 0; i < kD / 2; i += 2) {
        float* const at = to + i / 4 * 8 + (i & 2) * 4 * kD;
        __stcs(reinterpret_cast<float2*>(at), make_float2(rDK[i], rDK[i + 1]));
        __stcs(reinterpret_cast<float2*>(at + kTile * kD), make_float2(rDV[i], rDV[i + 1]));
      }
    }
  }
}

template <class Config>
__global__ void __launch_bounds__(Config::kThreads, 1)
    backward_columns(const __grid_constant__ BackwardMaps maps, const __grid_constant__ Params p,
                     const __grid_constant__ Workspace w) {
  extern __shared__ __align__(1024) uint8_t smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::Smem*>(smem_bytes);
  const auto init = [&](int c) {
    auto& s = smem.signals[c];
    init_barriers<kWarpgroup>(s.full, s.empty, s.column_full, s.column_empty);
  };
  split_roles<Config>(
      init, [&](int c) { load_columns<Config>(maps, p, w, smem, c); },
      [&](int c) { compute_columns<Config>(p, w, smem, c); });
}

}  // namespace seer::kernels::sm90::backward
