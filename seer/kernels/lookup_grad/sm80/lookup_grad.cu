// The gradient of lookup heads' scores for sm_80 and later chips.
//
//   find_pairs   a thread block for each row of a head: scores of a key block at a time by mma.sync, their largest ─► pairs
//   sum_queries  a warp for each row of a head: its key blocks, one after another ─► dq
//   sum_keys     a warp for each key block of a head: its rows, one after another ─► dk

#include <cmath>

#include "seer/kernels/attention/instance.h"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/device/tile_sm80.cuh"
#include "seer/kernels/lookup_grad/gpu.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels {
namespace {

constexpr int kTokens = 64;    // of a row and of a key block
constexpr int kThreads = 128;  // a warp has 16 of the queries
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAllLanes = 0xffffffff;

struct Row {
  int seq, first, num_queries;  // `first`: query of the sequence
};

__device__ __forceinline__ Row row_at(const LookupGradParams& p, int64_t row) {
  const int seq = sequence_of(p.cu_rows, p.num_seqs, row);
  const int first = static_cast<int>(row - p.cu_rows[seq]) * kTokens;
  return {seq, first, min(kTokens, static_cast<int>(p.len_q(seq)) - first)};
}

__device__ __forceinline__ int64_t entry(const LookupGradParams& p, int head, int64_t row,
                                         int64_t block) {
  return (head * p.num_rows + row) * p.num_blocks + block;
}

// A score and its place: larger scores first, then smaller places.
__device__ __forceinline__ uint64_t candidate(float score, int place) {
  const uint32_t bits = __float_as_uint(score);
  const uint32_t ordered = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return uint64_t{ordered} << 32 | static_cast<uint32_t>(~place);
}

template <class Element, int kRank>
struct Smem {
  device::SmemTile<Element, kTokens, kRank> q, k[2];
  uint64_t best[kWarps];
};

template <class Element, int kRank>
__global__ void __launch_bounds__(kThreads) find_pairs(const __grid_constant__ LookupGradParams p) {
  __shared__ Smem<Element, kRank> smem;
  const int64_t row = p.num_rows - 1 - blockIdx.x;  // the longest first
  const int head = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const Row r = row_at(p, row);
  const int last = static_cast<int>(p.last_key(r.seq, r.first + r.num_queries - 1));
  const int num_blocks = last < 0 ? 0 : last / kTokens + 1,
            k_len = static_cast<int>(p.len_k(r.seq));

  const auto start_copy = [&](auto& to, const StridedIn& x, int64_t token, int num) {
    const Element* g =
        static_cast<const Element*>(x.data) + token * x.token_stride + head * x.head_stride;
    device::load_async<kThreads>(to, g, x.token_stride, num);
  };
  start_copy(smem.q, p.q, p.cu_q[r.seq] + r.first, r.num_queries);
  if (num_blocks > 0) start_copy(smem.k[0], p.k, p.key_token(r.seq, 0), k_len);
  ptx::cp_async_commit();

  const int i0 = warp * 16 + lane / 4, column = lane % 4 * 2;
  float lse[2];
  int limit[2];  // last keys that the thread's two queries see
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int i = i0 + 8 * e;
    const bool is_inside = i < r.num_queries;
    lse[e] = is_inside ? p.lse[head * p.total_q + p.cu_q[r.seq] + r.first + i] : 0.f;
    limit[e] = is_inside ? static_cast<int>(p.last_key(r.seq, r.first + i)) : -1;
  }
  for (int n = 0; n < num_blocks; ++n) {
    ptx::cp_async_wait<0>();
    __syncthreads();  // this block is here, and no warp reads the one before
    if (n + 1 < num_blocks) {
      const int key0 = (n + 1) * kTokens;
      start_copy(smem.k[(n + 1) % 2], p.k, p.key_token(r.seq, key0), k_len - key0);
    }
    ptx::cp_async_commit();
    float rS[kTokens / 8][4];
    const auto queries = [&](uint32_t(&rA)[4], int k) {
      device::load_left(rA, smem.q, warp * 16, k);
    };
    device::multiply_transposed(rS, queries, smem.k[n % 2]);
    float top = -INFINITY;
    int place = -1;
#pragma unroll
    for (int e = 0; e < 2; ++e) {  // places grow: the first of equal scores stays
#pragma unroll
      for (int t = 0; t < kTokens / 8; ++t) {
#pragma unroll
        for (int c = 0; c < 2; ++c) {
          const int j = 8 * t + column + c;
          const float score = fmaf(rS[t][2 * e + c], p.scale, -lse[e]);
          if (n * kTokens + j <= limit[e] && score > top) {
            top = score;
            place = (i0 + 8 * e) * kTokens + j;
          }
        }
      }
    }
    uint64_t best = place < 0 ? 0 : candidate(top, place);
#pragma unroll
    for (int lanes = 16; lanes >= 1; lanes /= 2) {
      const uint64_t other = __shfl_xor_sync(kAllLanes, best, lanes);
      best = other > best ? other : best;
    }
    if (lane == 0) smem.best[warp] = best;
    __syncthreads();
    if (threadIdx.x == 0) {
      for (int w = 1; w < kWarps; ++w) best = smem.best[w] > best ? smem.best[w] : best;
      p.pairs[entry(p, head, row, n)] =
          best == 0 ? -1 : static_cast<int32_t>(~static_cast<uint32_t>(best));
    }
  }
  ptx::cp_async_wait<0>();
  for (int64_t n = num_blocks + threadIdx.x; n < p.num_blocks; n += kThreads) {
    p.pairs[entry(p, head, row, n)] = -1;
  }
}

// Of one row or key block: `num` tokens from `out` on get the sum over steps [begin, end) of d * x of the other token.
// step(n) gives the entry of a pair, own(pair) and other(n, pair) its two tokens.
template <class Element, int kRank, class Entry, class Own, class Other>
__device__ __forceinline__ void sum_pairs(const LookupGradParams& p, const StridedIn& x, int head,
                                          float (&sum)[kTokens][kRank], int64_t begin, int64_t end,
                                          const Entry& entry_of, const Own& own, const Other& other,
                                          float* out, int num) {
  constexpr int kEach = kRank / 32;  // features of a lane
  const int lane = threadIdx.x % 32;
  for (int i = 0; i < kTokens; ++i) {
#pragma unroll
    for (int c = 0; c < kEach; ++c) sum[i][lane + 32 * c] = 0.f;
  }
  for (int64_t n = begin; n < end; ++n) {
    const int64_t at = entry_of(n);
    const int32_t pair = p.pairs[at];
    if (pair < 0) continue;
    const float d = p.dscores[at] * p.scale;
    const Element* from = static_cast<const Element*>(x.data) + other(n, pair) * x.token_stride +
                          head * x.head_stride + lane;
#pragma unroll
    for (int c = 0; c < kEach; ++c) {
      float& to = sum[own(pair)][lane + 32 * c];
      to = fmaf(d, static_cast<float>(from[32 * c]), to);
    }
  }
  const int64_t stride = int64_t{p.num_q_heads} * kRank;
  for (int i = 0; i < num; ++i) {
#pragma unroll
    for (int c = 0; c < kEach; ++c) {
      out[i * stride + head * kRank + lane + 32 * c] = sum[i][lane + 32 * c];
    }
  }
}

template <class Element, int kRank>
__global__ void __launch_bounds__(32) sum_queries(const __grid_constant__ LookupGradParams p) {
  __shared__ float sum[kTokens][kRank];
  const int64_t row = blockIdx.x;
  const int head = blockIdx.y;
  const Row r = row_at(p, row);
  const int64_t token = p.cu_q[r.seq] + r.first;
  sum_pairs<Element, kRank>(
      p, p.k, head, sum, 0, p.num_blocks, [&](int64_t n) { return entry(p, head, row, n); },
      [](int pair) { return pair / kTokens; },
      [&](int64_t n, int pair) { return p.key_token(r.seq, n * kTokens + pair % kTokens); },
      p.dq + token * p.num_q_heads * kRank, r.num_queries);
}

template <class Element, int kRank>
__global__ void __launch_bounds__(32) sum_keys(const __grid_constant__ LookupGradParams p) {
  __shared__ float sum[kTokens][kRank];
  const int64_t block = blockIdx.x;
  const int head = blockIdx.y, seq = blockIdx.z;
  const int num = min(int64_t{kTokens}, p.len_k(seq) - block * kTokens);
  if (num <= 0) return;
  const int64_t row0 = p.cu_rows[seq];
  sum_pairs<Element, kRank>(
      p, p.q, head, sum, row0, p.cu_rows[seq + 1],
      [&](int64_t row) { return entry(p, head, row, block); },
      [](int pair) { return pair % kTokens; },
      [&](int64_t row, int pair) { return p.cu_q[seq] + (row - row0) * kTokens + pair / kTokens; },
      p.dk + p.key_token(seq, block * kTokens) * p.num_kv_heads * kRank, num);
}

template <class Element, int kRank>
void run(const LookupGradParams& p, void* stream) {
  const auto rows = static_cast<unsigned>(p.num_rows), heads = static_cast<unsigned>(p.num_q_heads);
  if (rows > 0) {
    launch(find_pairs<Element, kRank>, dim3(rows, heads), kThreads, 0, stream, p);
    launch(sum_queries<Element, kRank>, dim3(rows, heads), 32, 0, stream, p);
  }
  if (p.num_blocks > 0) {
    launch(sum_keys<Element, kRank>,
           dim3(static_cast<unsigned>(p.num_blocks), heads, static_cast<unsigned>(p.num_seqs)), 32,
           0, stream, p);
  }
}

}  // namespace

void lookup_grad_sm80(const LookupGradParams& p, void* stream) {
  run_instance<32, 64>(p, [&]<class Element, int kRank>() { run<Element, kRank>(p, stream); });
}

}  // namespace seer::kernels
