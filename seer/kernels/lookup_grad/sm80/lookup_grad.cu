// The gradient of lookup heads' scores for sm_80 and later chips. Thread blocks have 64 queries and 64 keys of a head at a time:
//
//   find_largest   a row, its key blocks one after another ─► largest, sums
//   sum_queries    a row, its key blocks one after another ─► dq
//   sum_keys       a key block, its rows one after another ─► dk
//
// All three compute scores by mma.sync. In the last two one key of a query and a block remains, with its weight w.

#include <algorithm>
#include <cmath>

#include "seer/kernels/attention/instance.h"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/lookup_grad/gpu.h"
#include "seer/kernels/lookup_grad/sm80/tiles.cuh"

namespace seer::kernels {
namespace lookup_sm80 {

// A score and its query: larger scores first, then earlier queries. 0: none.
__device__ __forceinline__ uint64_t candidate(float score, int query) {
  const uint32_t bits = __float_as_uint(score);
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{ordered} << 32 | static_cast<uint32_t>(~query);
}

template <class Element, int kRank>
__global__ void __launch_bounds__(kThreads)
    find_largest(const __grid_constant__ LookupGradParams p) {
  __shared__ RowTiles<Element, kRank> tiles;
  __shared__ uint64_t best[kWarps];
  __shared__ float sums[kTokens];
  const Row row(p, p.num_rows - 1 - blockIdx.x);  // the longest first
  const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  if (threadIdx.x < kTokens) sums[threadIdx.x] = 0.f;
  float lse[2];
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int i = warp * 16 + lane / 4 + 8 * e;
    lse[e] = i < row.num_queries ? p.lse[head * p.total_q + row.token + i] : 0.f;
  }
  const int num_blocks = num_seen(p, row);
  tiles.walk(p, head, row, num_blocks, [&](int n, const auto& q, const auto& k) {
    Maximum of[2];
    find_maxima(p, row, n * kTokens, q, k, of);
    uint64_t largest = 0;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      const float score = fmaf(of[e].product, p.scale, -lse[e]);
      if (of[e].key < 0 || isnan(score)) continue;
      const uint64_t own = candidate(score, warp * 16 + lane / 4 + 8 * e);
      largest = own > largest ? own : largest;
    }
#pragma unroll
    for (int lanes = 16; lanes >= 4; lanes /= 2) {
      const uint64_t other = __shfl_xor_sync(kAllLanes, largest, lanes);
      largest = other > largest ? other : largest;
    }
    if (lane == 0) best[warp] = largest;
    __syncthreads();
    if (threadIdx.x != 0) return;
    for (int w = 1; w < kWarps; ++w) largest = best[w] > largest ? best[w] : largest;
    const int query = largest == 0 ? -1 : static_cast<int>(~static_cast<uint32_t>(largest));
    const int64_t at = entry(p, head, row, n);
    p.largest[at] = query;
    if (query >= 0) sums[query] += p.dscores[at];
  });
  for (int64_t n = num_blocks + threadIdx.x; n < p.num_blocks; n += kThreads) {
    p.largest[entry(p, head, row, n)] = -1;
  }
  __syncthreads();  // the sums are complete
  if (threadIdx.x < row.num_queries) {
    p.sums[head * p.total_q + row.token + threadIdx.x] = sums[threadIdx.x];
  }
}

template <class Element, int kRank>
__global__ void __launch_bounds__(kThreads)
    sum_queries(const __grid_constant__ LookupGradParams p) {
  using S = Share<kRank>;
  __shared__ RowTiles<Element, kRank> tiles;
  __shared__ Weights weights;
  const Row row(p, p.num_rows - 1 - blockIdx.x);
  const int head = blockIdx.y;
  const S share;
  float sum[S::kQueries] = {};
  tiles.walk(p, head, row, num_seen(p, row), [&](int n, const auto& q, const auto& k) {
    weights.find(p, head, row, n, q, k);
#pragma unroll
    for (int i = 0; i < S::kQueries; ++i) {
      const int query = share.part * S::kQueries + i;
      const float w = weights.w[query];
      if (w != 0.f) sum[i] = fmaf(w, element(k, weights.key[query], share.feature), sum[i]);
    }
  });
#pragma unroll
  for (int i = 0; i < S::kQueries; ++i) {
    const int query = share.part * S::kQueries + i;
    if (query >= row.num_queries) break;
    p.dq[((row.token + query) * p.num_q_heads + head) * kRank + share.feature] = sum[i];
  }
}

template <class Element, int kRank>
struct KeySmem {
  Tile<Element, kRank> k, q[2];
  Weights weights;
  float sum[Share<kRank>::kParts][kTokens][kRank];
};

// Of one key block of a head, which the sequence may not have.
template <class Element, int kRank>
__device__ __forceinline__ void sum_keys_of(const LookupGradParams& p, int seq, int block, int head,
                                            KeySmem<Element, kRank>& smem) {
  using S = Share<kRank>;
  const int num_keys = static_cast<int>(p.len_k(seq)) - block * kTokens;
  if (num_keys <= 0) return;
  const S share;
#pragma unroll 1
  for (int j = 0; j < kTokens; ++j) smem.sum[share.part][j][share.feature] = 0.f;
  const int64_t end = p.cu_rows[seq + 1];
  int64_t number = p.cu_rows[seq];  // from the first row that sees the block
  while (number < end && num_seen(p, Row(p, number)) <= block) ++number;

  const auto start = [&](int64_t row_number) {
    const Row row(p, row_number);
    start_copy(smem.q[row_number % 2], p.q, head, row.token, row.num_queries);
  };
  start_copy(smem.k, p.k, head, p.key_token(seq, int64_t{block} * kTokens), num_keys);
  if (number < end) start(number);
  ptx::cp_async_commit();
  for (; number < end; ++number) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // this row is here, and no warp reads the one before
    if (number + 1 < end) start(number + 1);
    ptx::cp_async_commit();
    const Row row(p, number);
    const auto& q = smem.q[number % 2];
    smem.weights.find(p, head, row, block, q, smem.k);
#pragma unroll 1
    for (int i = 0; i < S::kQueries; ++i) {
      const int query = share.part * S::kQueries + i;
      const float w = smem.weights.w[query];
      if (w == 0.f) continue;
      float& to = smem.sum[share.part][smem.weights.key[query]][share.feature];
      to = fmaf(w, element(q, query, share.feature), to);
    }
  }
  ptx::cp_async_wait<0>();
  __syncthreads();  // the sums are complete
  const int64_t token = p.key_token(seq, int64_t{block} * kTokens);
  for (int j = share.part; j < min(num_keys, kTokens); j += S::kParts) {
    float sum = 0.f;
#pragma unroll
    for (int part = 0; part < S::kParts; ++part) sum += smem.sum[part][j][share.feature];
    p.dk[((token + j) * p.num_kv_heads + head) * kRank + share.feature] = sum;
  }
}

constexpr int64_t kMostSequences = 65535;  // of a launch: an axis of its grid

template <class Element, int kRank>
__global__ void __launch_bounds__(kThreads, 2)
    sum_keys(const __grid_constant__ LookupGradParams p) {
  extern __shared__ __align__(128) unsigned char smem_bytes[];
  auto& smem = *reinterpret_cast<KeySmem<Element, kRank>*>(smem_bytes);
  for (int seq = blockIdx.z; seq < p.num_seqs; seq += gridDim.z) {
    sum_keys_of<Element, kRank>(p, seq, blockIdx.x, blockIdx.y, smem);
    __syncthreads();  // the sums are read
  }
}

template <class Element, int kRank>
void run(const LookupGradParams& p, void* stream) {
  const auto rows = static_cast<unsigned>(p.num_rows), heads = static_cast<unsigned>(p.num_q_heads);
  if (rows > 0) {
    launch(find_largest<Element, kRank>, dim3(rows, heads), kThreads, 0, stream, p);
    launch(sum_queries<Element, kRank>, dim3(rows, heads), kThreads, 0, stream, p);
  }
  if (p.num_blocks > 0) {
    const auto seqs = static_cast<unsigned>(std::min<int64_t>(p.num_seqs, kMostSequences));
    launch(sum_keys<Element, kRank>, dim3(static_cast<unsigned>(p.num_blocks), heads, seqs),
           kThreads, sizeof(KeySmem<Element, kRank>), stream, p);
  }
}

}  // namespace lookup_sm80

void lookup_grad_sm80(const LookupGradParams& p, void* stream) {
  run_instance<32, 64>(
      p, [&]<class Element, int kRank>() { lookup_sm80::run<Element, kRank>(p, stream); });
}

}  // namespace seer::kernels
