#pragma once
// What the kernels of lookup_grad share: a row's queries, tiles of 64 tokens, the largest score of a query in a key block, and
// its weight.

#include <cmath>

#include "seer/kernels/device/tile_sm80.cuh"
#include "seer/kernels/lookup_grad/params.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels::lookup_sm80 {

constexpr int kTokens = 64;    // of a row and of a key block
constexpr int kThreads = 128;  // a warp has 16 of the queries
constexpr int kWarps = kThreads / 32;
constexpr unsigned kAllLanes = 0xffffffff;

// The queries of a row.
struct Row {
  int seq, first, num_queries;  // `first`: query of the sequence
  int64_t number, token;        // row of all rows; its first token

  __device__ __forceinline__ Row(const LookupGradParams& p, int64_t row)
      : seq(sequence_of(p.cu_rows, p.num_seqs, row)),
        first(static_cast<int>(row - p.cu_rows[seq]) * kTokens),
        num_queries(min(kTokens, static_cast<int>(p.len_q(seq)) - first)),
        number(row),
        token(p.cu_q[seq] + first) {}
};

__device__ __forceinline__ int64_t entry(const LookupGradParams& p, int head, const Row& row,
                                         int64_t block) {
  return (head * p.num_rows + row.number) * p.num_blocks + block;
}

template <class Element, int kRank>
using Tile = device::SmemTile<Element, kTokens, kRank>;

// Starts the copy of tokens of a head; zeros behind the first `num`.
template <class Element, int kRank>
__device__ __forceinline__ void start_copy(const Tile<Element, kRank>& to, const StridedIn& x,
                                           int head, int64_t token, int num) {
  const Element* g =
      static_cast<const Element*>(x.data) + token * x.token_stride + head * x.head_stride;
  device::load_async<kThreads>(to, g, x.token_stride, num);
}

template <class Element, int kRank>
__device__ __forceinline__ float element(const Tile<Element, kRank>& tile, int row, int column) {
  const auto* bytes = reinterpret_cast<const char*>(tile.data);
  constexpr int kChunk = Tile<Element, kRank>::kChunk;
  const int at = Tile<Element, kRank>::offset(row, column / kChunk);
  return static_cast<float>(reinterpret_cast<const Element*>(bytes + at)[column % kChunk]);
}

// The largest of a query's products with the keys of a block.
struct Maximum {
  float product = -INFINITY;
  int key = -1;  // of the block

  __device__ __forceinline__ void take(float other, int other_key) {
    if (other > product || (other == product && other_key < key)) product = other, key = other_key;
  }
};

// Of a thread's two queries: it is `of`[e] of query warp * 16 + lane / 4 + 8 e, which the quad agrees on. `first_key`: that of
// the block, counted from the sequence's start.
template <class Element, int kRank>
__device__ __forceinline__ void find_maxima(const LookupGradParams& p, const Row& row,
                                            int first_key, const Tile<Element, kRank>& q,
                                            const Tile<Element, kRank>& k, Maximum (&of)[2]) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  float rS[kTokens / 8][4];
  const auto queries = [&](uint32_t(&rA)[4], int step) {
    device::load_left(rA, q, warp * 16, step);
  };
  device::multiply_transposed(rS, queries, k);
#pragma unroll
  for (int e = 0; e < 2; ++e) {
    const int i = warp * 16 + lane / 4 + 8 * e;
    const int last =
        i < row.num_queries ? static_cast<int>(p.last_key(row.seq, row.first + i)) - first_key : -1;
    of[e] = {};
#pragma unroll
    for (int t = 0; t < kTokens / 8; ++t) {
#pragma unroll
      for (int c = 0; c < 2; ++c) {
        const int j = 8 * t + lane % 4 * 2 + c;
        if (j <= last && rS[t][2 * e + c] > of[e].product) of[e] = {rS[t][2 * e + c], j};
      }
    }
#pragma unroll
    for (int lanes = 1; lanes <= 2; lanes *= 2) {
      const float product = __shfl_xor_sync(kAllLanes, of[e].product, lanes);
      const int key = __shfl_xor_sync(kAllLanes, of[e].key, lanes);
      if (key >= 0) of[e].take(product, key);
    }
  }
}

// A row's queries and its key blocks, of which the next one travels while `use(n, q, k)` works on one.
template <class Element, int kRank>
struct RowTiles {
  Tile<Element, kRank> q, k[2];

  template <class Use>
  __device__ __forceinline__ void walk(const LookupGradParams& p, int head, const Row& row,
                                       int num_blocks, const Use& use) {
    const int k_len = static_cast<int>(p.len_k(row.seq));
    start_copy(q, p.q, head, row.token, row.num_queries);
    if (num_blocks > 0) start_copy(k[0], p.k, head, p.key_token(row.seq, 0), k_len);
    ptx::cp_async_commit();
    for (int n = 0; n < num_blocks; ++n) {
      ptx::cp_async_wait<0>();
      __syncthreads();  // this block is here, and no warp reads the one before
      if (n + 1 < num_blocks) {
        const int key0 = (n + 1) * kTokens;
        start_copy(k[(n + 1) % 2], p.k, head, p.key_token(row.seq, key0), k_len - key0);
      }
      ptx::cp_async_commit();
      use(n, q, k[n % 2]);
    }
    ptx::cp_async_wait<0>();
  }
};

// Key blocks of which the row sees something.
__device__ __forceinline__ int num_seen(const LookupGradParams& p, const Row& row) {
  const int64_t last = p.last_key(row.seq, row.first + row.num_queries - 1);
  return last < 0 ? 0 : static_cast<int>(last) / kTokens + 1;
}

// Of each query of a row and one key block: the key that remains, and its weight; 0 where there is none.
struct Weights {
  float w[kTokens];
  int key[kTokens];

  // By all threads; they wait for each other.
  template <class Element, int kRank>
  __device__ __forceinline__ void find(const LookupGradParams& p, int head, const Row& row, int n,
                                       const Tile<Element, kRank>& q,
                                       const Tile<Element, kRank>& k) {
    Maximum of[2];
    find_maxima(p, row, n * kTokens, q, k, of);
    const int64_t at = entry(p, head, row, n);
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int e = 0; e < 2; ++e) {
      if (lane % 4 != e) continue;
      const int i = threadIdx.x / 32 * 16 + lane / 4 + 8 * e;
      float weight = 0.f;
      if (of[e].key >= 0) {
        const int64_t query = head * p.total_q + row.token + i;
        const float sum = p.sums[query];
        if (p.largest[at] == i) weight = p.dscores[at];
        if (sum != 0.f) {
          weight -= sum * expf(fmaf(of[e].product, p.scale, -p.lse[query]));
        }
      }
      w[i] = weight * p.scale;
      key[i] = max(of[e].key, 0);
    }
    __syncthreads();
  }
};

// Features are shared out to threads, and so are queries where there are threads left.
template <int kRank>
struct Share {
  static constexpr int kParts = kThreads / kRank, kQueries = kTokens / kParts;
  const int feature = threadIdx.x % kRank, part = threadIdx.x / kRank;
};

}  // namespace seer::kernels::lookup_sm80
