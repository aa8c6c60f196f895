#pragma once
// Gradients of keys and values for sm_80 and later chips: a thread block has 64 keys of one kv head, a
// warp 16 of them, and walks the rows that list their column.
//
// One buffer each for queries and their gradients: q[i] travels during dP^T = v grad_o[i]^T,
// grad_o[i + 1] during dk += dS^T q[i].

#include "seer/kernels/block_sparse_attn/backward/sm80/tiles.cuh"

namespace seer::kernels::sm80::backward {

// The row tiles that list a column: heads of the group in turn, rows ascending.
class RowWalk {
 public:
  __device__ __forceinline__ RowWalk(const Params& p, const Workspace& w, const ColumnTile& tile,
                                     int first, int last)
      : p_(p), w_(w), tile_(tile), left_(last - first) {
    word_ = tile.first_row / 32;
    rows_ = rows_of_word();
    // Whole words of what comes before.
    for (int n; is_inside() && first >= (n = __popc(rows_)); first -= n) next_word();
    for (; is_inside() && first > 0; --first) rows_ &= rows_ - 1;
  }

  // The next tile whose last query sees the first key; false: there is none.
  __device__ __forceinline__ bool next(int* head, int* row_tile) {
    for (; left_ > 0 && is_inside(); --left_) {
      while (is_inside() && rows_ == 0) next_word();
      if (!is_inside()) return false;
      *head = tile_.kv_head * tile_.num_heads + head_;
      *row_tile = word_ * 32 + __ffs(rows_) - 1;
      rows_ &= rows_ - 1;
      const int query0 = (*row_tile - tile_.first_row) * kTile;
      if (query0 < tile_.q_len && query0 + kTile - 1 + tile_.offset >= tile_.k_first) {
        --left_;
        return true;
      }
    }
    return false;
  }

 private:
  const Params& p_;
  const Workspace& w_;
  const ColumnTile& tile_;
  int left_, head_ = 0, word_;
  uint32_t rows_;

  __device__ __forceinline__ bool is_inside() const { return head_ < tile_.num_heads; }
  __device__ __forceinline__ uint32_t rows_of_word() const {
    return tile_.bits(p_, w_, head_)[word_] & tile_.rows_of_word(word_);
  }
  __device__ __forceinline__ void next_word() {
    if (++word_ * 32 >= tile_.last_row) ++head_, word_ = tile_.first_row / 32;
    if (is_inside()) rows_ = rows_of_word();
  }
};

template <class Config>
__global__ void __launch_bounds__(kThreads* Config::kHalves, Config::kColumnBlocks)
    backward_columns(const __grid_constant__ Params p, const __grid_constant__ Workspace w) {
  using Element = typename Config::Element;
  constexpr int kD = Config::kHeadDim, kOwn = kD / Config::kHalves, kQueries = Config::kQueryStep;
  constexpr int kN = kThreads * Config::kHalves;
  extern __shared__ __align__(128) unsigned char smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::ColumnSmem*>(smem_bytes);

  // 1. Which keys, and which of their steps: parts of split columns come first.
  const bool is_part = blockIdx.x < w.most_parts;
  int first = 0, last;
  int64_t column = blockIdx.x;
  if (is_part) {
    if (column >= w.counters->num_parts) return;
    const Part of = w.parts[column];
    column = of.column;
    const int size = (w.steps[column] + of.count - 1) / of.count;
    first = of.index * size;
    last = min(first + size, w.steps[column]);
  } else {
    column -= w.most_parts;
    last = w.steps[column];
    if (last > most_steps(p, w)) return;
  }
  ColumnTile& tile = smem.column;  // read where it is needed: registers are what is short here
  if (threadIdx.x == 0) tile = describe_column(p, w, column);
  __syncthreads();
  if (tile.k_left <= 0) return;

  // 2. They travel with the first queries.
  load_rows<Element, kN>(smem.left[0], p.k, tile.k_token, tile.kv_head, tile.k_left);
  load_rows<Element, kN>(smem.left[1], p.v, tile.k_token, tile.kv_head, tile.k_left);
  // A row tile is one step of 64 queries, or two of 32.
  constexpr int kSteps = kTile / kQueries;
  RowWalk walk(p, w, tile, first, last);
  int head = 0, row_tile = 0, step = kSteps - 1;
  const auto advance = [&] {
    if (++step < kSteps) return true;
    step = 0;
    return walk.next(&head, &row_tile);
  };
  const auto query_of_step = [&] { return (row_tile - tile.first_row) * kTile + step * kQueries; };
  const auto load = [&](int which) {
    load_rows<Element, kN>(smem.right[which], which ? p.grad_o : p.q,
                           int64_t{tile.q_token} + query_of_step(), head,
                           tile.q_len - query_of_step());
  };
  bool has_step = advance();
  if (has_step) load(1);
  ptx::cp_async_commit();
  if (has_step) load(0);
  ptx::cp_async_commit();

  const int warp = threadIdx.x / 32, half = warp / 4, row0 = warp % 4 * 16;
  const int own = row0 + threadIdx.x % 32 / 4, pair = threadIdx.x % 4 * 2;
  const float scale_log2 = p.scale * 1.44269504f;
  const auto key = [&](uint32_t(&rA)[4], int k) { device::load_left(rA, smem.left[0], row0, k); };
  const auto value = [&](uint32_t(&rA)[4], int k) { device::load_left(rA, smem.left[1], row0, k); };

  // 3. The rows.
  float rDK[kOwn / 8][4] = {}, rDV[kOwn / 8][4] = {};
#pragma unroll 1
  while (has_step) {
    const float* const stats =
        w.stats + (head * w.row_tiles + row_tile) * 2 * kTile + step * kQueries + pair;
    // The first query that sees this thread's first key.
    const int seen = tile.k_first + own - tile.offset - query_of_step() - pair;
    ptx::cp_async_wait<1>();
    __syncthreads();  // gradients of outputs are here
    float rDP[kQueries / 8][4], rS[kQueries / 8][4];
    device::multiply_transposed(rDP, value, smem.right[1]);
    ptx::cp_async_wait<0>();
    __syncthreads();  // the queries are here
    device::multiply_transposed(rS, key, smem.right[0]);
#pragma unroll
    for (int n = 0; n < kQueries / 8; ++n) {
      const float2 lse = *reinterpret_cast<const float2*>(stats + 8 * n);
      const float2 delta = *reinterpret_cast<const float2*>(stats + kTile + 8 * n);
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const float weight = ptx::exp2_approx(fmaf(rS[n][e], scale_log2, e % 2 ? -lse.y : -lse.x));
        const bool is_hidden = 8 * n + e % 2 < seen + e / 2 * 8;
        rS[n][e] = is_hidden ? 0.f : weight;
        rDP[n][e] = is_hidden ? 0.f : weight * (rDP[n][e] - (e % 2 ? delta.y : delta.x));
      }
    }
    device::multiply_add(rDV, rS, smem.right[1], half * kOwn);
    __syncthreads();  // no warp reads the gradients of outputs
    has_step = advance();
    if (has_step) load(1);
    ptx::cp_async_commit();
    device::multiply_add(rDK, rDP, smem.right[0], half * kOwn);
    __syncthreads();  // no warp reads the queries
    if (has_step) load(0);
    ptx::cp_async_commit();
  }
  ptx::cp_async_wait<0>();  // without rows the keys may still travel

  // 4. The results, or the sums of a part.
  if (!is_part) {
    const int left = min(tile.k_left, kTile);
    store_rows<Element>(rDK, p.scale, p.grad_k, tile.k_token, tile.kv_head, own, left, half * kOwn);
    store_rows<Element>(rDV, 1.f, p.grad_v, tile.k_token, tile.kv_head, own, left, half * kOwn);
    return;
  }
  float* const to =
      w.partials + int64_t{blockIdx.x} * 2 * kTile * kD + own * kD + half * kOwn + pair;
#pragma unroll
  for (int n = 0; n < kOwn / 8; ++n) {
#pragma unroll
    for (int r = 0; r < 2; ++r) {
      float* const at = to + 8 * n + 8 * r * kD;
      *reinterpret_cast<float2*>(at) = make_float2(rDK[n][2 * r], rDK[n][2 * r + 1]);
      *reinterpret_cast<float2*>(at + kTile * kD) = make_float2(rDV[n][2 * r], rDV[n][2 * r + 1]);
    }
  }
}

}  // namespace seer::kernels::sm80::backward
