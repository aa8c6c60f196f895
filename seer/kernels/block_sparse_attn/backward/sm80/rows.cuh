#pragma once
// Gradients of queries for sm_80 and later chips: a thread block has 64 queries of one head, a warp 16
// of them, and walks the key tiles of their list.
//
// One buffer each for keys and values: k[i] travels during dP = grad_o v[i]^T, v[i + 1] during
// dq += dS k[i].

#include "seer/kernels/block_sparse_attn/backward/sm80/tiles.cuh"

namespace seer::kernels::sm80::backward {

template <class Config>
__global__ void __launch_bounds__(kThreads, Config::kRowBlocks)
    backward_rows(const __grid_constant__ Params p, const __grid_constant__ Workspace w) {
  using Element = typename Config::Element;
  constexpr int kD = Config::kHeadDim, kKeys = Config::kKeyStep;
  extern __shared__ __align__(128) unsigned char smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::RowSmem*>(smem_bytes);

  // 1. Which queries.
  const int tiles_per_row = p.lists.block_q / kTile;
  const int tile = gridDim.x - 1 - blockIdx.x;  // last rows first: they have the longest lists
  const int head = blockIdx.y;
  const int row = tile / tiles_per_row;
  const int seq = last_begun(p.lists.cu_rows, p.num_seqs, row);
  const int first = static_cast<int>(tile - p.lists.cu_rows[seq] * tiles_per_row) * kTile;
  const QueryTile queries = QueryTile::of(p, head, seq, first, kTile);
  if (queries.num_queries <= 0) return;  // the second half of a row of 128 queries
  const int64_t entry =
      int64_t{head / (p.num_q_heads / p.lists.num_heads)} * p.lists.num_rows + row;
  const int32_t* const list = p.lists.list + p.lists.begin[entry];
  const int steps_per_block = p.lists.block_k / kKeys;
  const auto key_of_step = [&](int step) {
    return list[step / steps_per_block] * p.lists.block_k + step % steps_per_block * kKeys;
  };
  int num_steps = p.lists.count[entry] * steps_per_block;
  while (num_steps > 0 && key_of_step(num_steps - 1) > queries.last_key())
    --num_steps;  // they ascend
  const auto load_keys = [&](const auto& to, const StridedIn& x, int key0) {
    load_rows<Element>(to, x, queries.key_token(key0), queries.kv_head, queries.k_len - key0);
  };

  // 2. They travel with the first values and keys.
  load_rows<Element>(smem.left[0], p.q, queries.q_begin, head, queries.num_queries);
  load_rows<Element>(smem.left[1], p.grad_o, queries.q_begin, head, queries.num_queries);
  if (num_steps > 0) load_keys(smem.right[1], p.v, key_of_step(0));
  ptx::cp_async_commit();
  if (num_steps > 0) load_keys(smem.right[0], p.k, key_of_step(0));
  ptx::cp_async_commit();

  const int row0 = attention::warp_row0(), own = attention::thread_row0();
  const float* const stats = w.stats + (head * w.row_tiles + tile) * 2 * kTile + own;
  const float lse[2] = {stats[0], stats[8]}, delta[2] = {stats[kTile], stats[kTile + 8]};
  const float scale_log2 = p.scale * 1.44269504f;
  const auto query = [&](uint32_t(&rA)[4], int k) { device::load_left(rA, smem.left[0], row0, k); };
  const auto grad = [&](uint32_t(&rA)[4], int k) { device::load_left(rA, smem.left[1], row0, k); };

  // 3. The listed keys.
  float rDQ[kD / 8][4] = {};
#pragma unroll 1
  for (int step = 0; step < num_steps; ++step) {
    const int key0 = key_of_step(step);
    ptx::cp_async_wait<1>();
    __syncthreads();  // the values are here
    float rDP[kKeys / 8][4], rS[kKeys / 8][4];
    device::multiply_transposed(rDP, grad, smem.right[1]);
    ptx::cp_async_wait<0>();
    __syncthreads();  // the keys are here, and no warp reads the values
    if (step + 1 < num_steps) load_keys(smem.right[1], p.v, key_of_step(step + 1));
    ptx::cp_async_commit();
    device::multiply_transposed(rS, query, smem.right[0]);
    const int column0 = key0 + threadIdx.x % 4 * 2;
    const int last = queries.limit + own - column0, end = queries.k_len - 1 - column0;
#pragma unroll
    for (int n = 0; n < kKeys / 8; ++n) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int r = e / 2;
        const float weight = ptx::exp2_approx(fmaf(rS[n][e], scale_log2, -lse[r]));
        rS[n][e] = 8 * n + e % 2 > min(last + 8 * r, end) ? 0.f : weight * (rDP[n][e] - delta[r]);
      }
    }
    device::multiply_add(rDQ, rS, smem.right[0]);
    __syncthreads();  // no warp reads the keys
    if (step + 1 < num_steps) load_keys(smem.right[0], p.k, key_of_step(step + 1));
    ptx::cp_async_commit();
  }
  ptx::cp_async_wait<0>();  // without keys the queries may still travel
  store_rows<Element>(rDQ, p.scale, p.grad_q, queries.q_begin, head, own, queries.num_queries, 0);
}

}  // namespace seer::kernels::sm80::backward
