#pragma once
// Attention of a few queries to one piece of keys for sm_80 and later chips, with cp.async and
// mma.sync (FlashDecoding).
//
// A thread block computes up to 16 (query, head) pairs that share a key head against a piece of its
// keys. Each warp walks every kWarps-th group of 16 keys by itself, with a ring of stages of its own:
// no warp waits for another before the end, where their results are combined.
//
//   iteration i   wait for stage i, start the copy of stage i + kStages - 1,
//                 S = q k^T, online softmax, O += P v

#include "seer/kernels/cuda_check.h"
#include "seer/kernels/decode_attn/pieces.h"
#include "seer/kernels/decode_attn/sm80/config.h"
#include "seer/kernels/device/softmax_sm80.cuh"

namespace seer::kernels::decode_sm80 {

// What a thread block works on. Keys are counted from the start of the sequence.
struct Work {
  Piece piece;
  int kv_head, group, first_row;  // rows are (query, head of the group) pairs, queries first
  int num_rows;                   // of this thread block
  int64_t len_k;                  // of the sequence
  int64_t first_key;              // of the piece, among the tokens of k and v

  __device__ __forceinline__ explicit Work(const DecodeAttnParams& p)
      : piece(piece_of(p, blockIdx.x)), group(p.group()) {
    const int rows = p.num_queries * group, tiles = (rows + kRows - 1) / kRows;
    kv_head = blockIdx.y / tiles;
    first_row = blockIdx.y % tiles * kRows;
    num_rows = min(kRows, rows - first_row);
    len_k = p.len_k(piece.seq);
    first_key = p.key_token(piece.seq, piece.begin);
  }
  // Where key j of the piece lies among the tokens of k and v.
  __device__ __forceinline__ int64_t key_token(int j) const { return first_key + j; }
  __device__ __forceinline__ int query(int row) const { return (first_row + row) / group; }
  __device__ __forceinline__ int head(int row) const {
    return kv_head * group + (first_row + row) % group;
  }
  // The keys of the piece that a row sees; rows behind the last see what the last one does.
  __device__ __forceinline__ Visible seen(const DecodeAttnParams& p, int row) const {
    const Visible v = visible_to(p, len_k, query(min(row, num_rows - 1)));
    return {max(v.begin, piece.begin), min(v.end, piece.end)};
  }
  template <class Element>
  __device__ __forceinline__ const Element* query_at(const DecodeAttnParams& p, int row) const {
    const int64_t token = int64_t{piece.seq} * p.num_queries + query(row);
    return static_cast<const Element*>(p.q.data) + token * p.q.token_stride +
           head(row) * p.q.head_stride;
  }
  // Where the results of a row go, among those of all pieces.
  __device__ __forceinline__ int64_t result(const DecodeAttnParams& p, int row) const {
    return (int64_t{blockIdx.x} * p.num_queries + query(row)) * p.num_q_heads + head(row);
  }
};

// A warp starts the copy of a tile whose rows lie `stride` elements apart; zeros from num_rows on.
template <class Tile, class Element>
__device__ __forceinline__ void load_warp_async(const Tile& s, const Element* g, int64_t stride,
                                                int num_rows) {
#pragma unroll
  for (int pass = 0; pass < Tile::kRows * Tile::kChunks / 32; ++pass) {
    const int at = pass * 32 + threadIdx.x % 32, row = at / Tile::kChunks, c = at % Tile::kChunks;
    ptx::cp_async_16(s.chunk(row, c), g + row * stride + c * Tile::kChunk, row < num_rows);
  }
}

// The left operand of mma.sync straight from memory: zeros in rows that do not exist.
template <class Element, int kSteps>
__device__ __forceinline__ void load_queries(uint32_t (&rQ)[kSteps][4], const DecodeAttnParams& p,
                                             const Work& work) {
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    const int row = lane / 4 + 8 * half;
    const bool exists = row < work.num_rows;
    const auto* g = reinterpret_cast<const uint32_t*>(work.query_at<Element>(p, exists ? row : 0) +
                                                      lane % 4 * 2);
#pragma unroll
    for (int k = 0; k < kSteps; ++k) {
      rQ[k][half] = exists ? g[8 * k] : 0u;
      rQ[k][half + 2] = exists ? g[8 * k + 4] : 0u;
    }
  }
}

// Keys that a thread's two rows do not see become -inf; `key0` is the first of the tile.
__device__ __forceinline__ void mask(float (&rS)[2][4], int64_t key0, const Visible (&seen)[2]) {
#pragma unroll
  for (int n = 0; n < 2; ++n) {
#pragma unroll
    for (int e = 0; e < 4; ++e) {
      const int64_t key = key0 + 8 * n + threadIdx.x % 4 * 2 + e % 2;
      if (key < seen[e / 2].begin || key >= seen[e / 2].end) rS[n][e] = -INFINITY;
    }
  }
}

// What a warp has found goes to shared memory.
template <class Found, int kTiles>
__device__ __forceinline__ void leave(Found& found, const float (&rO)[kTiles][4],
                                      device::OnlineSoftmax& softmax) {
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#pragma unroll
  for (int r = 0; r < 2; ++r) {
    const int row = lane / 4 + 8 * r;
    float sum = softmax.sum[r];
    sum += __shfl_xor_sync(0xffffffff, sum, 1);
    sum += __shfl_xor_sync(0xffffffff, sum, 2);
    if (lane % 4 == 0) {
      found.max[warp][row] = softmax.max[r];
      found.sum[warp][row] = sum;
    }
#pragma unroll
    for (int n = 0; n < kTiles; ++n) {
      *reinterpret_cast<float2*>(&found.o[warp][row][8 * n + lane % 4 * 2]) =
          make_float2(rO[n][2 * r], rO[n][2 * r + 1]);
    }
  }
}

// Combines the warps' results of every row and normalises them; 0 and -inf where no key was seen.
template <class Config>
__device__ __forceinline__ void store(const DecodeAttnParams& p, const Work& work,
                                      const typename Config::Found& found) {
  constexpr int kD = Config::kHeadDim, kWarps = Config::kWarps;
  float* partial_lse = p.partials + num_slots(p) * p.num_queries * p.num_q_heads * kD;
  for (int at = threadIdx.x; at < work.num_rows * (kD / 2); at += Config::kThreads) {
    const int row = at / (kD / 2), column = at % (kD / 2) * 2;
    float top = -INFINITY, sum = 0.f;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) top = fmaxf(top, found.max[w][row]);
    const float base = top == -INFINITY ? 0.f : top;
    float2 o = make_float2(0.f, 0.f);
#pragma unroll
    for (int w = 0; w < kWarps; ++w) {
      const float weight = ptx::exp2_approx(found.max[w][row] - base);
      const float2 x = *reinterpret_cast<const float2*>(&found.o[w][row][column]);
      sum += weight * found.sum[w][row];
      o.x += weight * x.x;
      o.y += weight * x.y;
    }
    const float inverse = sum == 0.f ? 0.f : 1.f / sum;
    const int64_t to = work.result(p, row);
    *reinterpret_cast<float2*>(p.partials + to * kD + column) =
        make_float2(o.x * inverse, o.y * inverse);
    if (column == 0) {
      partial_lse[to] = sum == 0.f ? -INFINITY : (top + log2f(sum)) * 0.693147181f;
    }
  }
}

template <class Config>
__global__ void __launch_bounds__(Config::kThreads, Config::kBlocksPerSm)
    pieces(const __grid_constant__ DecodeAttnParams p) {
  using Element = typename Config::Element;
  constexpr int kD = Config::kHeadDim, kStages = Config::kStages, kWarps = Config::kWarps;
  extern __shared__ __align__(128) unsigned char smem_bytes[];
  auto& smem = *reinterpret_cast<typename Config::Smem*>(smem_bytes);

  ptx::start_dependents();
  const Work work(p);
  if (work.piece.begin >= work.piece.end) return;
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;

  // 1. The first keys travel, and the queries.
  const int num_keys = static_cast<int>(work.piece.end - work.piece.begin);
  const auto start_tile = [&](const auto& to, const StridedIn& x, int at) {
    const Element* g = static_cast<const Element*>(x.data) + work.key_token(at) * x.token_stride +
                       work.kv_head * x.head_stride;
    load_warp_async(to, g, x.token_stride, num_keys - at);
  };
  const auto start_copy = [&](int at, int stage) {  // keys of the piece from `at` on
    if (at < num_keys) {
      start_tile(smem.stages[warp][stage].k, p.k, at);
      start_tile(smem.stages[warp][stage].v, p.v, at);
    }
    ptx::cp_async_commit();
  };
  uint32_t rQ[Config::kIsWide ? 1 : kD / 16][4];
  if constexpr (Config::kIsWide) {
    // A commit group before all others: it arrives with the first stage, for this warp's part.
    for (int at = threadIdx.x; at < kRows * decltype(smem.tile)::kChunks; at += Config::kThreads) {
      const int row = at / decltype(smem.tile)::kChunks, c = at % decltype(smem.tile)::kChunks;
      const bool exists = row < work.num_rows;
      ptx::cp_async_16(smem.tile.chunk(row, c), work.query_at<Element>(p, exists ? row : 0) + c * 8,
                       exists);
    }
    ptx::cp_async_commit();
    ptx::cp_async_wait<0>();
    __syncthreads();  // the queries are here
  }
  constexpr int kStride = kWarps * kKeys;
#pragma unroll
  for (int i = 0; i + 1 < kStages; ++i) start_copy(warp * kKeys + i * kStride, i);
  if constexpr (!Config::kIsWide) load_queries<Element>(rQ, p, work);
  const auto query = [&](uint32_t(&rA)[4], int k) {
    if constexpr (Config::kIsWide) {
      device::load_left(rA, smem.tile, 0, k);
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) rA[i] = rQ[k][i];
    }
  };

  // 2. The keys of this warp.
  const Visible seen[2] = {work.seen(p, lane / 4), work.seen(p, lane / 4 + 8)};
  const int64_t whole_begin = work.seen(p, kRows).begin, whole_end = work.seen(p, 0).end;
  const float scale_log2 = p.scale * 1.44269504f;
  float rO[kD / 8][4] = {};
  device::OnlineSoftmax softmax;
  int stage = 0, free = kStages - 1;
  for (int at = warp * kKeys; at < num_keys; at += kStride) {
    ptx::cp_async_wait<kStages - 2>();
    __syncwarp();  // this stage is here, and no lane reads the one before
    start_copy(at + (kStages - 1) * kStride, free);
    auto& tile = smem.stages[warp][stage];
    float rS[kKeys / 8][4];
    device::multiply_transposed(rS, query, tile.k);
    const int64_t key0 = work.piece.begin + at;
    if (key0 < whole_begin || key0 + kKeys > whole_end) mask(rS, key0, seen);
    float keep[2];
    softmax.update(rS, scale_log2, keep);
    device::rescale(rO, keep);
    device::multiply_add(rO, rS, tile.v);
    free = stage;
    stage = stage + 1 == kStages ? 0 : stage + 1;
  }

  // 3. What the warps found.
  ptx::cp_async_wait<0>();
  __syncthreads();  // nothing travels, and no warp reads a stage
  auto& found = *reinterpret_cast<typename Config::Found*>(smem_bytes);
  leave(found, rO, softmax);
  __syncthreads();  // all have left their results
  store<Config>(p, work, found);
}

// Leaves results of pieces in p.partials: o [slots, M, Hq, D], then lse [slots, M, Hq].
template <class Element, int kHeadDim>
void run_pieces(const DecodeAttnParams& p, void* stream) {
  using Config = DecodeConfig<Element, kHeadDim>;
  const int rows = p.num_queries * p.group();
  const dim3 grid(static_cast<unsigned>(num_slots(p)),
                  static_cast<unsigned>(p.num_kv_heads * ((rows + kRows - 1) / kRows)));
  launch(pieces<Config>, grid, Config::kThreads, Config::kSmemBytes, stream, p);
}

}  // namespace seer::kernels::decode_sm80
