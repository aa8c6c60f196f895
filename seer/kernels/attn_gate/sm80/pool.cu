// Pooling of tokens into blocks, bound by memory: a warp takes one block of tokens of one head, a
// lane 16 bytes of a token, so that many loads travel at once and nothing is shared. Heads come
// first in the grid: what is read at the same time lies side by side.

#include "seer/base/error.h"
#include "seer/kernels/alignment.h"
#include "seer/kernels/attn_gate/attn_gate.h"
#include "seer/kernels/attn_gate/gpu.h"
#include "seer/kernels/attn_gate/sm80/units.cuh"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/device/ptx_sm80.cuh"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kAtOnce = 8;  // loads of a lane that travel together
constexpr unsigned kAll = 0xffffffffu;

// What is asked for: the largest and the smallest value, the sum.
template <bool kExtremes_, bool kSum_>
struct Kinds {
  static constexpr bool kExtremes = kExtremes_, kSum = kSum_;
};

// What one lane has seen of kUnits neighbouring units of features.
template <class Kinds, class Unit, int kUnits>
struct Seen {
  static constexpr int kWidth = std::is_same_v<Unit, float> ? 1 : 2;
  Unit max[kUnits], min[kUnits];
  float sum[kUnits][kWidth];

  __device__ __forceinline__ Seen() {
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      max[i] = both<Unit>(-INFINITY), min[i] = both<Unit>(INFINITY);
#pragma unroll
      for (float& s : sum[i]) s = 0;
    }
  }
  __device__ __forceinline__ void add(int i, Unit x) {
    if constexpr (Kinds::kExtremes) {
      max[i] = larger(max[i], x);
      min[i] = smaller(min[i], x);
    }
    if constexpr (Kinds::kSum) {
      float wide[kWidth];
      widen(x, wide);
#pragma unroll
      for (int j = 0; j < kWidth; ++j) sum[i][j] += wide[j];
    }
  }
  // Adds what the lane `step` away has seen.
  __device__ __forceinline__ void add_lane(int step) {
#pragma unroll
    for (int i = 0; i < kUnits; ++i) {
      if constexpr (Kinds::kExtremes) {
        max[i] = larger(max[i], __shfl_xor_sync(kAll, max[i], step));
        min[i] = smaller(min[i], __shfl_xor_sync(kAll, min[i], step));
      }
      if constexpr (Kinds::kSum) {
#pragma unroll
        for (float& s : sum[i]) s += __shfl_xor_sync(kAll, s, step);
      }
    }
  }
};

// kUnits of a token's features that lie side by side.
template <class Unit, int kUnits>
struct alignas(sizeof(Unit) * kUnits) Chunk {
  Unit at[kUnits];

  __device__ __forceinline__ static Chunk load(const void* from) {
    // Read once: it need not stay in any cache.
    const uint4 bits = __ldcs(static_cast<const uint4*>(from));
    return reinterpret_cast<const Chunk&>(bits);
  }
};

// One feature, at any address: a unit of which only the first element counts.
template <class Element, class Unit>
struct Single {
  Unit at[1];

  __device__ __forceinline__ static Single load(const void* from) {
    const Element x = *static_cast<const Element*>(from);
    if constexpr (std::is_same_v<Unit, float>)
      return {x};
    else
      return {Unit(x, x)};
  }
};

// kCount neighbouring features of a pooled vector, which rotate as GateProjectParams has it: those
// half further on or back, which they rotate with, are another lane's; half is a multiple of kCount.
// Called by all lanes, each with its own feature.
template <int kCount>
__device__ __forceinline__ void rotate(float (&x)[kCount], int feature, const float* cos,
                                       const float* sin, int half) {
  const bool is_first = feature < half, rotates = feature < 2 * half;
  const int lane = threadIdx.x % 32, apart = half / kCount;
  const int with = !rotates ? lane : is_first ? lane + apart : lane - apart;
  const int angle = !rotates ? 0 : is_first ? feature : feature - half;
  float other[kCount];
#pragma unroll
  for (int i = 0; i < kCount; ++i) other[i] = __shfl_sync(kAll, x[i], with);
  if (!rotates) return;
#pragma unroll
  for (int i = 0; i < kCount; i += 4) {
    const float4 c = *reinterpret_cast<const float4*>(cos + angle + i);
    const float4 s = *reinterpret_cast<const float4*>(sin + angle + i);
    const float cs[4] = {c.x, c.y, c.z, c.w}, sn[4] = {s.x, s.y, s.z, s.w};
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float across = other[i + j] * sn[j];
      x[i + j] = x[i + j] * cs[j] + (is_first ? -across : across);
    }
  }
}

// 2^lanes_log2 lanes have a token's next features, the other lanes other tokens. kTurns: a lane's
// loads cover all features at once.
template <class Element, bool kAligned, class Kinds, bool kTurns>
__device__ __forceinline__ void pool_blocks(const GatePoolParams& p, int lanes_log2) {
  using Unit = UnitOf<Element>::Type;
  using Loaded = std::conditional_t<kAligned, Chunk<Unit, 4>, Single<Element, Unit>>;
  constexpr int kUnits = kAligned ? 4 : 1, kCount = kAligned ? 16 / sizeof(Element) : 1;
  using SeenHere = Seen<Kinds, Unit, kUnits>;
  constexpr int kWidth = SeenHere::kWidth;
  const int h = blockIdx.x * kWarps + threadIdx.x / 32;
  if (h >= p.num_heads) return;
  const int lanes = 1 << lanes_log2, lane = threadIdx.x % 32 & (lanes - 1);
  const int group = threadIdx.x % 32 >> lanes_log2, groups = 32 >> lanes_log2;
  for (int64_t r = blockIdx.y; r < p.num_blocks; r += gridDim.y) {
    const int b = sequence_of(p.cu_blocks, p.num_seqs, r);
    if (b == p.num_seqs) return;
    const int64_t begin = p.cu[b] + (r - p.cu_blocks[b]) * p.block;
    const int tokens = static_cast<int>(min(int64_t{p.block}, p.cu[b + 1] - begin));
    const Element* x =
        static_cast<const Element*>(p.x.data) + begin * p.x.token_stride + h * p.x.head_stride;
    float* out = p.pooled + (r * p.num_heads + h) * count_pools(p.pools) * p.head_dim;
    const int64_t stride = groups * p.x.token_stride;

    for (int first = 0; first < p.head_dim; first += lanes * kCount) {
      const int feature = first + lane * kCount;
      SeenHere seen;
      if (feature < p.head_dim) {
        const auto take = [&](const Loaded& v) {
#pragma unroll
          for (int i = 0; i < kUnits; ++i) seen.add(i, v.at[i]);
        };
        const Element* from = x + group * p.x.token_stride + feature;
        int t = group;
        for (; t + (kAtOnce - 1) * groups < tokens; t += kAtOnce * groups) {
          Loaded v[kAtOnce];
#pragma unroll
          for (int j = 0; j < kAtOnce; ++j, from += stride) v[j] = Loaded::load(from);
#pragma unroll
          for (int j = 0; j < kAtOnce; ++j) take(v[j]);
        }
        for (; t < tokens; t += groups, from += stride) take(Loaded::load(from));
      }
      for (int step = lanes; step < 32; step *= 2) seen.add_lane(step);
      const auto of = [](const Unit(&units)[kUnits], int i) {
        float wide[kWidth];
        widen(units[i / kWidth], wide);
        return wide[i % kWidth];
      };
      const auto average = [&](int i) {
        return seen.sum[i / kWidth][i % kWidth] / static_cast<float>(tokens);
      };
      float rotated[kCount];
      if constexpr (kTurns) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          rotated[i] = p.pools & kPoolAvg   ? average(i)
                       : p.pools & kPoolMax ? of(seen.max, i)
                                            : of(seen.min, i);
        }
        const int64_t angle = r * p.rope_half;
        rotate(rotated, feature, p.cos + angle, p.sin + angle, p.rope_half);
      }
      if (group == 0 && feature < p.head_dim) {
        float* to = out + feature;
        const auto store = [&](const auto& value) {  // of the i-th feature
          if constexpr (kAligned) {
#pragma unroll
            for (int i = 0; i < kCount; i += 4) {
              *reinterpret_cast<float4*>(to + i) =
                  make_float4(value(i), value(i + 1), value(i + 2), value(i + 3));
            }
          } else {
            *to = value(0);
          }
          to += p.head_dim;
        };
        if constexpr (kTurns) {
          store([&](int i) { return rotated[i]; });
        } else {
          if (p.pools & kPoolMax) store([&](int i) { return of(seen.max, i); });
          if (p.pools & kPoolMin) store([&](int i) { return of(seen.min, i); });
          if (p.pools & kPoolAvg) store(average);
        }
      }
    }
  }
}

// The bound leaves registers for all loads on their way. One thread block waits for the kernel
// ahead: whatever follows finds that complete, too, if this one ran beside it.
template <class Element, bool kAligned, class Kinds, bool kTurns>
__global__ void __launch_bounds__(kThreads, 8)
    pool(const __grid_constant__ GatePoolParams p, int lanes_log2) {
  ptx::start_dependents();
  pool_blocks<Element, kAligned, Kinds, kTurns>(p, lanes_log2);
  if (blockIdx.x == 0 && blockIdx.y == 0) ptx::wait_for_previous_kernel();
}

template <class Element, bool kAligned, bool kTurns>
void run(const GatePoolParams& p, void* stream) {
  constexpr int kCount = kAligned ? 16 / sizeof(Element) : 1;
  constexpr int64_t kMostRows = 65535;  // of a grid
  int lanes_log2 = 0;
  while (lanes_log2 < 5 && (kCount << lanes_log2) < p.head_dim) ++lanes_log2;
  const dim3 grid((p.num_heads + kWarps - 1) / kWarps,
                  static_cast<unsigned>(std::min(p.num_blocks, kMostRows)));
  const auto run_kind = [&]<class Kinds>(Kinds) {
    const auto kernel = pool<Element, kAligned, Kinds, kTurns>;
    split_memory(kernel, kSharedMemoryPercent);
    if (p.beside_previous) {
      launch_dependent(kernel, grid, kThreads, 0, stream, p, lanes_log2);
    } else {
      launch(kernel, grid, kThreads, 0, stream, p, lanes_log2);
    }
  };
  const bool extremes = p.pools & (kPoolMax | kPoolMin), sum = p.pools & kPoolAvg;
  if constexpr (!kTurns) {  // one pooling
    if (extremes && sum) return run_kind(Kinds<true, true>());
  }
  extremes ? run_kind(Kinds<true, false>()) : run_kind(Kinds<false, true>());
}

// 16 bytes at a time where every token and head begins at a multiple of them; rotated on the way
// where the features that rotate together meet in a warp.
template <class Element>
void run(const GatePoolParams& p, void* stream) {
  constexpr int kCount = 16 / sizeof(Element);
  const bool aligned = are_aligned(static_cast<const Element*>(p.x.data), p.pooled) &&
                       p.x.token_stride % kCount == 0 && p.x.head_stride % kCount == 0 &&
                       p.head_dim % kCount == 0;
  if (p.cos && aligned && are_aligned(p.cos, p.sin) && p.head_dim <= 32 * kCount &&
      p.rope_half % kCount == 0) {
    return run<Element, true, true>(p, stream);
  }
  aligned ? run<Element, true, false>(p, stream) : run<Element, false, false>(p, stream);
  if (p.cos) attn_gate_project_sm80(rotate_in_place(p), stream);
}

}  // namespace

void attn_gate_pool_sm80(const GatePoolParams& p, void* stream) {
  if (p.num_blocks == 0) return;
  switch (p.dtype) {
    case DType::f32: return run<float>(p, stream);
    case DType::f16: return run<__half>(p, stream);
    case DType::bf16: return run<__nv_bfloat16>(p, stream);
    case DType::f64: break;
  }
  fail("attn_gate_pool: dtype is f64, want f32, f16 or bf16");
}

}  // namespace seer::kernels
