// Combines the results of pieces of a sequence's keys: o = sum_i exp(lse_i - lse) o_i.

#include <cmath>

#include "seer/kernels/cuda_check.h"
#include "seer/kernels/decode_attn/pieces.h"
#include "seer/kernels/decode_attn/sm80/config.h"
#include "seer/kernels/device/ptx_sm80.cuh"

namespace seer::kernels::decode_sm80 {
namespace {

constexpr int kWarps = 4, kThreads = kWarps * 32, kMaxHeadDim = 256;

// A thread block takes one query of one head, a warp every kWarps-th piece.
template <class Element>
__global__ void __launch_bounds__(kThreads) combine(const __grid_constant__ DecodeAttnParams p) {
  __shared__ float2 sO[kWarps][kMaxHeadDim / 2];
  __shared__ float sTop[kWarps], sSum[kWarps];
  const int head = blockIdx.x % p.num_q_heads, warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const int64_t token = blockIdx.x / p.num_q_heads;
  const int seq = static_cast<int>(token / p.num_queries);
  const int query = static_cast<int>(token % p.num_queries), pairs = p.head_dim / 2;
  ptx::wait_for_previous_kernel();  // the pieces are complete
  const int pieces = static_cast<int>(num_pieces_of(p, p.len_k(seq)));
  const int64_t step = int64_t{p.num_queries} * p.num_q_heads;  // from a piece to the next
  const int64_t first = first_slot_of(p, seq) * step + query * p.num_q_heads + head;
  const float* lse = p.partials + num_slots(p) * step * p.head_dim + first;
  const auto* o = reinterpret_cast<const float2*>(p.partials + first * p.head_dim);

  float top = -INFINITY;
  for (int i = threadIdx.x; i < pieces; i += kThreads) top = fmaxf(top, lse[i * step]);
  for (int lanes = 16; lanes >= 1; lanes /= 2) {
    top = fmaxf(top, __shfl_xor_sync(0xffffffff, top, lanes));
  }
  if (lane == 0) sTop[warp] = top;
  __syncthreads();  // the largest of each warp is here
  for (int w = 0; w < kWarps; ++w) top = fmaxf(top, sTop[w]);
  const float base = top == -INFINITY ? 0.f : top;

  float2 sums[kMaxHeadDim / 64] = {};  // pairs of columns lane + 32 c
  float sum = 0.f;
#pragma unroll 4
  for (int i = warp; i < pieces; i += kWarps) {
    const float weight = expf(lse[i * step] - base);
    sum += weight;
#pragma unroll
    for (int c = 0; c < kMaxHeadDim / 64; ++c) {
      if (lane + 32 * c >= pairs) break;
      const float2 x = o[i * step * pairs + lane + 32 * c];
      sums[c].x += weight * x.x;
      sums[c].y += weight * x.y;
    }
  }
#pragma unroll
  for (int c = 0; c < kMaxHeadDim / 64; ++c) {
    if (lane + 32 * c < pairs) sO[warp][lane + 32 * c] = sums[c];
  }
  if (lane == 0) sSum[warp] = sum;
  __syncthreads();  // the sums of each warp are here
  if (threadIdx.x >= pairs) return;
  float2 all = make_float2(0.f, 0.f);
  float total = 0.f;
  for (int w = 0; w < kWarps; ++w) {
    total += sSum[w];
    all.x += sO[w][threadIdx.x].x;
    all.y += sO[w][threadIdx.x].y;
  }
  const float inverse = total == 0.f ? 0.f : 1.f / total;
  auto* gO = static_cast<Element*>(p.o.data) + token * p.o.token_stride + head * p.o.head_stride;
  *reinterpret_cast<uint32_t*>(gO + 2 * threadIdx.x) =
      ptx::pack<Element>(all.x * inverse, all.y * inverse);
  // With p.total_q itself ptxas 13.0.88 spills.
  const int64_t total_q = int64_t{p.num_seqs} * p.num_queries;
  if (threadIdx.x == 0) p.lse[head * total_q + token] = top + logf(total);
}

}  // namespace

void combine_pieces(const DecodeAttnParams& p, void* stream) {
  const dim3 grid(static_cast<unsigned>(p.num_seqs * p.num_queries * p.num_q_heads));
  if (p.dtype == DType::bf16) {
    launch_dependent(combine<bf16>, grid, kThreads, 0, stream, p);
  } else {
    launch_dependent(combine<f16>, grid, kThreads, 0, stream, p);
  }
}

}  // namespace seer::kernels::decode_sm80
