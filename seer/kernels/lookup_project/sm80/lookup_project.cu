// The projections of lookup heads for sm_80 and later chips. Each thread block takes tokens of one head, whose weight lies in
// shared memory, and x goes from memory to the registers that mma.sync reads, 16 bytes at a time.
//
// mma.sync wants of a lane (row lane / 4, t = lane % 4) the depths 2t, 2t + 1, 2t + 8, 2t + 9 of 16. Sums do not mind which number of
// x has which depth, as long as the weight's agree: depths of 32 numbers are permuted, so that a lane's are eight neighbours, 8t to
// 8t + 7. So are columns, for wide stores: kWide tiles of 8 columns give a lane 2 kWide neighbours.

#include <algorithm>

#include "seer/kernels/attention/instance.h"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/device/ptx_sm80.cuh"
#include "seer/kernels/lookup_project/gpu.h"

namespace seer::kernels {
namespace {

constexpr int kWarps = 8, kThreads = 32 * kWarps;
constexpr int kTiles = 2;                      // of 16 tokens, of a warp
constexpr int kTokens = kWarps * kTiles * 16;  // of a thread block
constexpr int kDepth = 32;                     // numbers of x that a lane's 16 bytes are part of

// A lane's tokens: numbers 8t to 8t + 7 of each 32, of rows lane / 4 and lane / 4 + 8 of a tile.
template <int kSteps>
struct Fragment {
  uint4 low[kSteps], high[kSteps];

  template <class Element>
  __device__ __forceinline__ void load(const LookupProjectParams::Side& side, int64_t head,
                                       int64_t token) {
    const int column = threadIdx.x % 4 * 8;
    const auto* x = static_cast<const Element*>(side.x.data) + head * side.x.head_stride + column;
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      low[s] = read(x + token * side.x.token_stride + s * kDepth, token < side.num_tokens);
      high[s] =
          read(x + (token + 8) * side.x.token_stride + s * kDepth, token + 8 < side.num_tokens);
    }
  }
  template <class Element>
  static __device__ __forceinline__ uint4 read(const Element* x, bool is_inside) {
    return is_inside ? __ldg(reinterpret_cast<const uint4*>(x)) : make_uint4(0, 0, 0, 0);
  }
};

// A head's matrix, column by column, in pieces of 8 numbers. Each column has its own order of pieces: those of two neighbouring
// columns that eight lanes read at once lie in different banks, and few of those that a warp writes in the same one.
template <class Element, int kHeadDim, int kRank>
struct Weight {
  static constexpr int kPieces =
      (kHeadDim + 63) / 64 * 8;  // of a column, with room for every order
  uint4 piece[kRank][kPieces];

  static __device__ __forceinline__ int place(int column, int n) {
    return n ^ ((column & 1) << 2 | (column >> 1 & 3));
  }
  // By all threads, from w [kHeadDim, kRank].
  __device__ __forceinline__ void fill(const float* w) {
    for (int i = threadIdx.x; i < kHeadDim / 2 * kRank; i += kThreads) {
      const int column = i % kRank, depth = i / kRank * 2;
      alignas(4) const Element two[2] = {static_cast<Element>(w[depth * kRank + column]),
                                         static_cast<Element>(w[(depth + 1) * kRank + column])};
      auto* const to = reinterpret_cast<uint32_t*>(&piece[column][place(column, depth / 8)]);
      to[depth % 8 / 2] = *reinterpret_cast<const uint32_t*>(two);
    }
  }
  __device__ __forceinline__ uint4 read(int column, int n) const {
    return piece[column][place(column, n)];
  }
};

template <class Element, int kHeadDim, int kRank>
__global__ void __launch_bounds__(kThreads) project(const __grid_constant__ LookupProjectParams p) {
  constexpr int kSteps = kHeadDim / kDepth, kColumnTiles = kRank / 8;
  constexpr int kWide = kColumnTiles < 4 ? kColumnTiles : 4;
  __shared__ Weight<Element, kHeadDim, kRank> weight;

  const LookupProjectParams::Side& side = p.sides[blockIdx.z];
  const int64_t first = int64_t{blockIdx.x} * kTokens;
  if (first >= side.num_tokens) return;
  const int l = blockIdx.y, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t token = first + warp * (kTiles * 16) + lane / 4, head = side.heads[l];
  Fragment<kSteps> x[kTiles];
#pragma unroll
  for (int m = 0; m < kTiles; ++m) x[m].template load<Element>(side, head, token + 16 * m);
  weight.fill(side.weight + int64_t{l} * kHeadDim * kRank);
  __syncthreads();

  float y[kTiles][kColumnTiles][4] = {};
#pragma unroll
  for (int s = 0; s < kSteps; ++s) {
#pragma unroll
    for (int n = 0; n < kColumnTiles; ++n) {
      const int slot = lane / 4;
      const int column =
          n / kWide * (8 * kWide) + slot / 2 * (2 * kWide) + n % kWide * 2 + slot % 2;
      const uint4 b = weight.read(column, s * (kDepth / 8) + lane % 4);
#pragma unroll
      for (int m = 0; m < kTiles; ++m) {
        const uint4 &low = x[m].low[s], &high = x[m].high[s];
        const uint32_t front[4] = {low.x, high.x, low.y, high.y};
        const uint32_t back[4] = {low.z, high.z, low.w, high.w};
        ptx::mma_16x8x16<Element>(y[m][n], front, b.x, b.y);
        ptx::mma_16x8x16<Element>(y[m][n], back, b.z, b.w);
      }
    }
  }

  struct alignas(4 * kWide) Neighbours {
    __half2 pair[kWide];
  };
#pragma unroll
  for (int m = 0; m < kTiles; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = token + 16 * m + 8 * half;
      if (row >= side.num_tokens) continue;
#pragma unroll
      for (int group = 0; group < kColumnTiles / kWide; ++group) {
        Neighbours out;
#pragma unroll
        for (int n = 0; n < kWide; ++n) {
          const float* of = &y[m][group * kWide + n][2 * half];
          out.pair[n] = __floats2half2_rn(of[0], of[1]);
        }
        auto* const to = static_cast<__half*>(side.y) + (row * p.num_heads + l) * kRank +
                         group * (8 * kWide) + lane % 4 * (2 * kWide);
        *reinterpret_cast<Neighbours*>(to) = out;
      }
    }
  }
}

template <class Element, int kHeadDim>
void run(const LookupProjectParams& p, void* stream) {
  const int64_t tokens = std::max(p.sides[0].num_tokens, p.sides[1].num_tokens);
  const dim3 grid(static_cast<unsigned>((tokens + kTokens - 1) / kTokens),
                  static_cast<unsigned>(p.num_heads), static_cast<unsigned>(p.sides.size()));
  const auto with = [&]<int kRank>() {
    launch(project<Element, kHeadDim, kRank>, grid, kThreads, 0, stream, p);
  };
  p.rank == 16   ? with.template operator()<16>()
  : p.rank == 32 ? with.template operator()<32>()
                 : with.template operator()<64>();
}

template <class Element>
void run_type(const LookupProjectParams& p, void* stream) {
  p.head_dim == 64   ? run<Element, 64>(p, stream)
  : p.head_dim == 96 ? run<Element, 96>(p, stream)
                     : run<Element, 128>(p, stream);
}

}  // namespace

void lookup_project_sm80(const LookupProjectParams& p, void* stream) {
  if (p.num_heads == 0 || std::max(p.sides[0].num_tokens, p.sides[1].num_tokens) == 0) return;
  p.dtype == DType::bf16 ? run_type<bf16>(p, stream) : run_type<f16>(p, stream);
}

}  // namespace seer::kernels
