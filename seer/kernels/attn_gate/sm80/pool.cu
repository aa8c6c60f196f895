// Pooling of tokens into blocks, bound by memory: a thread block takes one block of tokens of one
// head, a thread 16 bytes of a token, so that many loads travel at once.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "seer/kernels/attn_gate/attn_gate.h"
#include "seer/kernels/attn_gate/sm80/attn_gate.h"
#include "seer/kernels/cuda_check.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels {
namespace {

constexpr int kThreads = 128;

__device__ __forceinline__ float widen(float x) {
  return x;
}
__device__ __forceinline__ float widen(__half x) {
  return __half2float(x);
}
__device__ __forceinline__ float widen(__nv_bfloat16 x) {
  return __bfloat162float(x);
}

// What one thread has seen of kCount neighbouring features.
template <int kCount>
struct Seen {
  float max[kCount], min[kCount], sum[kCount];

  __device__ __forceinline__ Seen() {
#pragma unroll
    for (int i = 0; i < kCount; ++i) max[i] = min[i] = NAN, sum[i] = 0;  // fmax, fmin pass by NaN
  }
  template <class Element>
  __device__ __forceinline__ void take(const Element* x) {
    struct alignas(sizeof(Element) * kCount) Vector {
      Element at[kCount];
    };
    const Vector v = *reinterpret_cast<const Vector*>(x);
#pragma unroll
    for (int i = 0; i < kCount; ++i) add(i, widen(v.at[i]), widen(v.at[i]), widen(v.at[i]));
  }
  __device__ __forceinline__ void add(int i, float top, float bottom, float more) {
    max[i] = fmaxf(max[i], top);
    min[i] = fminf(min[i], bottom);
    sum[i] += more;
  }
};

// 2^lanes_log2 threads have a token's next features, the other threads other tokens.
template <class Element, int kCount>
__global__ void __launch_bounds__(kThreads)
    pool(const __grid_constant__ GatePoolParams p, int lanes_log2) {
  __shared__ float part[3][kCount][kThreads];
  const int64_t r = blockIdx.x;
  const int b = sequence_of(p.cu_blocks, p.num_seqs, r), h = blockIdx.y;
  if (b == p.num_seqs) return;
  const int64_t begin = p.cu[b] + (r - p.cu_blocks[b]) * p.block;
  const int tokens = static_cast<int>(min(int64_t{p.block}, p.cu[b + 1] - begin));
  const int lanes = 1 << lanes_log2, lane = threadIdx.x & (lanes - 1);
  const int group = threadIdx.x >> lanes_log2, groups = kThreads >> lanes_log2;
  const Element* x =
      static_cast<const Element*>(p.x.data) + begin * p.x.token_stride + h * p.x.head_stride;
  float* out = p.pooled + (r * p.num_heads + h) * count_pools(p.pools) * p.head_dim;

  for (int first = 0; first < p.head_dim; first += lanes * kCount) {
    const int feature = first + lane * kCount;
    Seen<kCount> seen;
    if (feature < p.head_dim) {
#pragma unroll 4
      for (int t = group; t < tokens; t += groups) seen.take(x + t * p.x.token_stride + feature);
    }
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      part[0][i][threadIdx.x] = seen.max[i];
      part[1][i][threadIdx.x] = seen.min[i];
      part[2][i][threadIdx.x] = seen.sum[i];
    }
    __syncthreads();
    for (int at = threadIdx.x; at < lanes * kCount; at += kThreads) {
      const int i = at & (kCount - 1), from = at / kCount;
      Seen<1> all;
      for (int g = 0; g < groups; ++g) {
        const int thread = (g << lanes_log2) + from;
        all.add(0, part[0][i][thread], part[1][i][thread], part[2][i][thread]);
      }
      if (first + at >= p.head_dim) continue;
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
  const dim3 grid(static_cast<unsigned>(p.num_blocks), static_cast<unsigned>(p.num_heads));
  launch(pool<Element, kCount>, grid, kThreads, 0, stream, p, lanes_log2);
}

// 16 bytes at a time where every token and head begins at a multiple of them.
template <class Element>
void run(const GatePoolParams& p, void* stream) {
  constexpr int kCount = 16 / sizeof(Element);
  const bool aligned = reinterpret_cast<uintptr_t>(p.x.data) % 16 == 0 &&
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
