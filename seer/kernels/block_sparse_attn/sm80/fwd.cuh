#pragma once
// Block-sparse attention forward for sm_80 and later chips, with cp.async and mma.sync.
//
// A thread block computes 64 queries of one head: it walks the key tiles that their list names, in
// ascending order, with an online softmax. A warp has 16 of the queries and all keys of a tile.
//
//   two stages   top of step i: k[i + 1] and v[i + 1] start; they travel during the whole step
//   one stage    v[i] travels during S = q k[i]^T, k[i + 1] during O += P v[i]

#include "seer/kernels/block_sparse_attn/sm80/config.h"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/device/softmax_sm80.cuh"

namespace seer::kernels::sm80 {

// The last sequence that begins at or before this row; one without rows is never it.
__device__ __forceinline__ int sequence_of_row(const int32_t* cu_rows, int num_seqs, int row) {
  int first = 0, end = num_seqs;
  while (end - first > 1) {
    const int middle = (first + end) / 2;
    (cu_rows[middle] <= row ? first : end) = middle;
  }
  return first;
}

// What a thread block works on: up to 64 queries of one head, and the steps their list asks for.
// Keys are counted from the start of the sequence.
struct Work {
  const int32_t* list;
  int block_k, steps_log2;  // a listed block is 2^steps_log2 steps
  int num_steps = 0;
  int head, kv_head;
  int q_begin, num_queries;  // the first query among all tokens; no queries where not positive
  int k_begin, k_len;
  int limit, slope;  // query i sees keys up to limit + slope * i

  __device__ __forceinline__ Work(const BlockSparseAttnParams& p, int step_keys) {
    const BlockList& lists = p.lists;
    const int tiles = lists.block_q / kQueries;   // of a row
    const int tile = gridDim.x - 1 - blockIdx.x;  // last rows first: they have the longest lists
    const int row = tile / tiles;
    const int seq = sequence_of_row(lists.cu_rows, p.num_seqs, row);
    const int q0 = p.cu_q[seq], q_len = p.cu_q[seq + 1] - q0;
    const int first = (row - lists.cu_rows[seq]) * lists.block_q + tile % tiles * kQueries;
    q_begin = q0 + first;
    num_queries = min(q_len - first, kQueries);
    if (num_queries <= 0) return;  // a row behind the last has no list either

    head = blockIdx.y;
    kv_head = head / (p.num_q_heads / p.num_kv_heads);
    k_begin = p.cu_k[seq];
    k_len = p.cu_k[seq + 1] - k_begin;
    limit = p.causal ? first + k_len - q_len : k_len - 1;
    slope = p.causal ? 1 : 0;
    find_steps(lists, row, head / (p.num_q_heads / lists.num_heads), step_keys);
  }

  __device__ __forceinline__ void find_steps(const BlockList& lists, int row, int list_head,
                                             int step_keys) {
    const int64_t entry = list_head * lists.num_rows + row;
    list = lists.list + lists.begin[entry];
    block_k = lists.block_k;
    steps_log2 = __ffs(block_k / step_keys) - 1;
    num_steps = lists.count[entry] << steps_log2;
    // Lists ascend: what no query sees is at the end.
    const int last_key = limit + slope * (num_queries - 1);
    while (num_steps > 0 && first_key(num_steps - 1, step_keys) > last_key) --num_steps;
  }

  __device__ __forceinline__ int first_key(int step, int step_keys) const {
    const int part = step & ((1 << steps_log2) - 1);
    return list[step >> steps_log2] * block_k + part * step_keys;
  }
};

// Scores of keys behind the last that a thread's two rows see (counted from the tile's first)
// become -inf.
template <int kTiles>
__device__ __forceinline__ void mask(float (&rS)[kTiles][4], int last0, int last1) {
  const int column = threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < kTiles; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      if (8 * n + e % 2 > (e < 2 ? last0 : last1) - column) rS[n][e] = -INFINITY;
    }
  }
}

// Normalises and stores, two elements a time.
template <class Element, int kTiles>
__device__ __forceinline__ void store(const BlockSparseAttnParams& p, const Work& work, int row0,
                                      const float (&rO)[kTiles][4],
                                      device::OnlineSoftmax& softmax) {
  float inverse[2], lse[2];
  softmax.finish(inverse, lse);
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = row0 + 8 * r;
    if (row >= work.num_queries) continue;
    const int64_t token = work.q_begin + row;
    Element* gO = static_cast<Element*>(p.o.data) + token * p.o.token_stride +
                  work.head * p.o.head_stride + threadIdx.x % 4 * 2;
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      *reinterpret_cast<uint32_t*>(gO + 8 * n) =
          ptx::pack<Element>(rO[n][2 * r] * inverse[r], rO[n][2 * r + 1] * inverse[r]);
    }
    if (threadIdx.x % 4 == 0) p.lse[work.head * p.total_q + token] = lse[r];
  }
}

template <class Config>
__global__ void __launch_bounds__(kThreads, Config::kBlocksPerSm)
    forward(const __grid_constant__ BlockSparseAttnParams p) {
  using Element = typename Config::Element;
  constexpr int kD = Config::kHeadDim, kKeys = Config::kKeys;
  constexpr bool kTwoStages = !Config::kIsWide;

  extern __shared__ __align__(128) unsigned char smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::Smem*>(smem_bytes);

  const Work work(p, kKeys);
  if (work.num_queries <= 0) return;

  // The last listed key tile begins before the sequence's end: it has one key at least.
  const auto start_copy = [&](const auto& tile, const StridedIn& x, int key0) {
    const Element* g = static_cast<const Element*>(x.data) +
                       int64_t{work.k_begin + key0} * x.token_stride + work.kv_head * x.head_stride;
    device::load_async<kThreads>(tile, g, x.token_stride, work.k_len - key0);
  };
  const auto key_of_step = [&](int step) {
    return step < work.num_steps ? work.first_key(step, kKeys) : 0;
  };

  // 1. Queries travel with the first keys.
  int key0 = key_of_step(0), next_key0 = key_of_step(1);
  device::load_async<kThreads>(smem.query(),
                               static_cast<const Element*>(p.q.data) +
                                   work.q_begin * p.q.token_stride + work.head * p.q.head_stride,
                               p.q.token_stride, work.num_queries);
  if (work.num_steps > 0) {
    start_copy(smem.k[0], p.k, key0);
    if constexpr (kTwoStages) start_copy(smem.v[0], p.v, key0);
  }
  ptx::cp_async_commit();

  const int warp_row0 = threadIdx.x / 32 * 16;
  uint32_t rQ[Config::kQueriesInRegisters ? kD / 16 : 1][4];
  if constexpr (Config::kQueriesInRegisters) {
    ptx::cp_async_wait<0>();
    __syncthreads();
#pragma unroll
    for (int k = 0; k < kD / 16; ++k) device::load_left(rQ[k], smem.query(), warp_row0, k);
  }
  const auto query = [&](uint32_t(&rA)[4], int k) {
    if constexpr (Config::kQueriesInRegisters) {
#pragma unroll
      for (int i = 0; i < 4; ++i) rA[i] = rQ[k][i];
    } else {
      device::load_left(rA, smem.query(), warp_row0, k);
    }
  };

  // 2. The listed keys.
  const int row0 = warp_row0 + threadIdx.x % 32 / 4;  // of this thread, and row0 + 8
  const int warp_limit = work.limit + work.slope * warp_row0;
  const float scale_log2 = p.scale * 1.44269504f;
  float rO[kD / 8][4] = {};
  device::OnlineSoftmax softmax;
  for (int step = 0; step < work.num_steps; ++step) {
    const int stage = kTwoStages ? step % 2 : 0;
    ptx::cp_async_wait<0>();
    __syncthreads();  // this step's tiles are here, and no warp reads the last step's
    if constexpr (!kTwoStages) {
      start_copy(smem.v[0], p.v, key0);
    } else if (step + 1 < work.num_steps) {
      start_copy(smem.k[stage ^ 1], p.k, next_key0);
      start_copy(smem.v[stage ^ 1], p.v, next_key0);
    }
    ptx::cp_async_commit();

    float rS[kKeys / 8][4];
    device::multiply_transposed(rS, query, smem.k[stage]);
    if (key0 + kKeys - 1 > warp_limit) {
      const int last = work.limit - key0 + work.slope * row0;
      mask(rS, last, last + 8 * work.slope);
    }
    float keep[2];
    softmax.update(rS, scale_log2, keep);
    device::rescale(rO, keep);

    if constexpr (!kTwoStages) {
      ptx::cp_async_wait<0>();
      __syncthreads();  // the values are here, and no warp reads the keys
      if (step + 1 < work.num_steps) start_copy(smem.k[0], p.k, next_key0);
      ptx::cp_async_commit();
    }
    key0 = next_key0;
    next_key0 = key_of_step(step + 2);  // travels during the product
    device::multiply_add(rO, rS, smem.v[stage]);
  }
  ptx::cp_async_wait<0>();  // without keys the queries may still travel

  store<Element>(p, work, row0, rO, softmax);
}

template <class Element, int kHeadDim>
void run_forward(const BlockSparseAttnParams& p, void* stream) {
  using Config = ForwardConfig<Element, kHeadDim>;
  const int64_t tiles = p.lists.num_rows * (p.lists.block_q / kQueries);
  if (tiles == 0) return;
  const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(p.num_q_heads));
  launch(forward<Config>, grid, kThreads, sizeof(typename Config::Smem), stream, p);
}

}  // namespace seer::kernels::sm80
