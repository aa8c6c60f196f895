// Pooling of tokens into blocks, bound by memory: a thread block takes one block of tokens of one
// head, a thread 16 bytes of a token, so that many loads travel at once. Heads come first in the
// grid: what is read at the same time lies side by side.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "seer/kernels/alignment.h"
#include "seer/kernels/attn_gate/attn_gate.h"
#include "seer/kernels/attn_gate/sm80/attn_gate.h"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;
constexpr int kAtOnce = 8;  // loads of a thread that travel together
constexpr unsigned kAll = 0xffffffffu;

__device__ __forceinline__ float widen(float x) {
  return x;
}
__device__ __forceinline__ float widen(__half x) {
  return __half2float(x);
}
__device__ __forceinline__ float widen(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

// What is asked for: the largest and the smallest value, the sum.
template <bool kExtremes_, bool kSum_>
struct Kinds {
  static constexpr bool kExtremes = kExtremes_, kSum = kSum_;
};

// What one thread has seen of kCount neighbouring features.
template <class Kinds, int kCount>
struct Seen {
  float max[kCount], min[kCount], sum[kCount];

  __device__ __forceinline__ Seen() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) max[i] = min[i] = NAN, sum[i] = 0;  // fmax, fmin pass by NaN
  }
  __device__ __forceinline__ void add(int i, float top, float bottom, float more) {
    if constexpr (Kinds::kExtremes) {
      max[i] = fmaxf(max[i], top);
      min[i] = fminf(min[i], bottom);
    }
    if constexpr (Kinds::kSum) sum[i] += more;
  }
  // Adds what the lane `step` away has seen.
  __device__ __forceinline__ void add_lane(int step) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      float top = 0, bottom = 0, more = 0;
      if constexpr (Kinds::kExtremes) {
        top = __shfl_xor_sync(kAll, max[i], step);
        bottom = __shfl_xor_sync(kAll, min[i], step);
      }
      if constexpr (Kinds::kSum) more = __shfl_xor_sync(kAll, sum[i], step);
      add(i, top, bottom, more);
    }
  }
};

template <class Element, int kCount>
struct alignas(sizeof(Element) * kCount) Vector {
  Element at[kCount];
};

// 2^lanes_log2 threads have a token's next features, the other threads other tokens. The bound leaves
// registers for all loads on their way.
template <class Element, int kCount, class Kinds>
__global__ void __launch_bounds__(kThreads, 8)
    pool(const __grid_constant__ GatePoolParams p, int lanes_log2) {
  __shared__ float part[3][kWarps][32 * kCount];
  const int64_t r = blockIdx.x / p.num_heads;
  const int h = static_cast<int>(blockIdx.x % p.num_heads);
  const int b = sequence_of(p.cu_blocks, p.num_seqs, r);
  if (b == p.num_seqs) return;
  const int64_t begin = p.cu[b] + (r - p.cu_blocks[b]) * p.block;
  const int tokens = static_cast<int>(min(int64_t{p.block}, p.cu[b + 1] - begin));
  const int lanes = 1 << lanes_log2, lane = threadIdx.x & (lanes - 1);
  const int group = threadIdx.x >> lanes_log2, groups = kThreads >> lanes_log2;
  const int warp = threadIdx.x / 32;
  const Element* x =
      static_cast<const Element*>(p.x.data) + begin * p.x.token_stride + h * p.x.head_stride;
  float* out = p.pooled + (r * p.num_heads + h) * count_pools(p.pools) * p.head_dim;

  for (int first = 0; first < p.head_dim; first += lanes * kCount) {
    const int feature = first + lane * kCount;
    Seen<Kinds, kCount> seen;
    if (feature < p.head_dim) {
      const auto load = [&](int t) {
        return *reinterpret_cast<const Vector<Element, kCount>*>(x + t * p.x.token_stride +
                                                                 feature);
      };
      const auto take = [&](const Vector<Element, kCount>& v) {
#pragma unroll
        for (int i = 0; i < kCount; ++i) {
          const float value = widen(v.at[i]);
          seen.add(i, value, value, value);
        }
      };
      int t = group;
      for (; t + (kAtOnce - 1) * groups < tokens; t += kAtOnce * groups) {
        Vector<Element, kCount> v[kAtOnce];
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) v[j] = load(t + j * groups);
#pragma unroll
        for (int j = 0; j < kAtOnce; ++j) take(v[j]);
      }
      for (; t < tokens; t += groups) take(load(t));
    }
    for (int step = lanes; step < 32; step *= 2) seen.add_lane(step);
    if (threadIdx.x % 32 < lanes) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) {
        if constexpr (Kinds::kExtremes) {
          part[0][warp][lane * kCount + i] = seen.max[i];
          part[1][warp][lane * kCount + i] = seen.min[i];
        }
        if constexpr (Kinds::kSum) part[2][warp][lane * kCount + i] = seen.sum[i];
      }
    }
    __syncthreads();
    for (int at = threadIdx.x; at < min(lanes * kCount, p.head_dim - first); at += kThreads) {
      Seen<Kinds, 1> all;
#pragma unroll
      for (int w = 0; w < kWarps; ++w) {  // add() reads what the kinds ask for
        all.add(0, part[0][w][at], part[1][w][at], part[2][w][at]);
      }
      float* to = out + first + at;
      const auto store = [&](float value) {
        *to = value;
        to += p.head_dim;
      };
      if (p.pools & kPoolMax) store(all.max[0]);
      if (p.pools & kPoolMin) store(all.min[0]);
      if (p.pools & kPoolAvg) store(all.sum[0] / static_cast<float>(tokens));
    }
    __syncthreads();
  }
}

template <class Element, int kCount>
void run(const GatePoolParams& p, void* stream) {
  int lanes_log2 = 0;
  while (lanes_log2 < 5 && (kCount << lanes_log2) < p.head_dim) ++lanes_log2;
  const int64_t blocks = p.num_blocks * p.num_heads;
  SEER_CHECK(blocks <= INT32_MAX, "attn_gate_pool: ", p.num_blocks, " blocks of ", p.num_heads,
             " heads are too many for one call; give fewer sequences");
  const auto run_kind = [&]<class Kinds>(Kinds) {
    prefer_shared_memory(pool<Element, kCount, Kinds>);
    launch(pool<Element, kCount, Kinds>, dim3(static_cast<unsigned>(blocks)), kThreads, 0, stream,
           p, lanes_log2);
  };
  const bool extremes = p.pools & (kPoolMax | kPoolMin), sum = p.pools & kPoolAvg;
  if (extremes && sum) return run_kind(Kinds<true, true>());
  extremes ? run_kind(Kinds<true, false>()) : run_kind(Kinds<false, true>());
}

// 16 bytes at a time where every token and head begins at a multiple of them.
template <class Element>
void run(const GatePoolParams& p, void* stream) {
  constexpr int kCount = 16 / sizeof(Element);
  const bool aligned = are_aligned(static_cast<const Element*>(p.x.data)) &&
                       p.x.token_stride % kCount == 0 && p.x.head_stride % kCount == 0 &&
                       p.head_dim % kCount == 0;
  aligned ? run<Element, kCount>(p, stream) : run<Element, 1>(p, stream);
}

}  // namespace

void attn_gate_pool_sm80(const GatePoolParams& p, void* stream) {
  if (p.num_blocks == 0) return;
  switch (p.dtype) {
    case DType::f32: return run<float>(p, stream);
    case DType::f16: return run<__half>(p, stream);
    case DType::bf16: return run<__nv_bfloat16>(p, stream);
  }
}

}  // namespace seer::kernels
