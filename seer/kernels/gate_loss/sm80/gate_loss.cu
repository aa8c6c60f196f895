// A warp for each row: the largest score, the sum of exponentials, then loss and gradient; what was
// read once comes from the cache. Rows' losses are summed by one thread block in a fixed order.

#include "seer/kernels/gate_loss/gpu.h"

#include "seer/kernels/cuda_check.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels {
namespace {

constexpr unsigned kAll = 0xffffffffu;
constexpr int kThreads = 128;
constexpr int kRows = kThreads / 32;  // of a thread block
constexpr int kSumThreads = 1024;

__device__ __forceinline__ double warp_sum(double x) {
#pragma unroll
  for (int lane = 16; lane > 0; lane /= 2) x += __shfl_xor_sync(kAll, x, lane);
  return x;
}

__device__ __forceinline__ int first_counted(const GateLossParams& p, int rows) {
  return static_cast<int>(floor(p.skip * rows));
}

// Scores and targets of one row, n of them.
struct LossRow {
  const float *scores, *target;
  float* grad;
  int n;

  template <class Visit>
  __device__ __forceinline__ void for_each(const Visit& visit) const {
    for (int i = threadIdx.x % 32; i < n; i += 32) visit(i, scores[i], target[i]);
  }
};

// Of the scores that are not masked.
struct Softmax {
  float top;
  double exp_sum, target_sum;  // target_sum: NaN where it cannot be learned
  bool empty;                  // nothing is to be learned: all masked, or no target

  __device__ __forceinline__ Softmax(const LossRow& row) {
    top = -INFINITY;
    target_sum = exp_sum = 0;
    bool any = false;
    row.for_each([&](int, float s, float t) {
      if (s == -INFINITY) {
        if (t != 0) target_sum = NAN;
        return;
      }
      any = true;
      top = fmaxf(top, s);
      target_sum += isnan(s) ? s : t;  // NaN must stay to be seen, also where no target is
    });
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) top = fmaxf(top, __shfl_xor_sync(kAll, top, lane));
    target_sum = warp_sum(target_sum);
    empty = !isnan(target_sum) && (!__any_sync(kAll, any) || target_sum == 0);
    if (empty) return;
    row.for_each([&](int, float s, float) { exp_sum += expf(s - top); });
    exp_sum = warp_sum(exp_sum);
  }
};

// What a row's loss begins with.
__device__ __forceinline__ double nan_or_zero(const Softmax& softmax) {
  return isnan(softmax.target_sum) ? softmax.target_sum : 0;
}

// Sum of target * (log target - log_softmax(scores)); the gradient is written times `weight`.
__device__ __forceinline__ double kl_row(const LossRow& row, double weight) {
  const Softmax softmax(row);
  const float log_sum = static_cast<float>(log(softmax.exp_sum));
  const float mass = static_cast<float>(softmax.target_sum / softmax.exp_sum);
  const float scale = static_cast<float>(weight);
  double loss = nan_or_zero(softmax);
  row.for_each([&](int i, float s, float t) {
    float grad = 0;
    if (!softmax.empty && s != -INFINITY) {
      const float log_p = s - softmax.top - log_sum;
      loss += t * ((t > 0 ? logf(t) : 0.0f) - log_p);
      grad = scale * (expf(s - softmax.top) * mass - t);
    }
    row.grad[i] = grad;
  });
  return warp_sum(loss);
}

// Sum of (softmax(scores) - target)^2; the gradient is written times `weight`.
__device__ __forceinline__ double mse_row(const LossRow& row, double weight) {
  const Softmax softmax(row);
  const float normalise = static_cast<float>(1 / softmax.exp_sum);
  const float scale = static_cast<float>(2 * weight);
  double loss = nan_or_zero(softmax), dot = 0;
  row.for_each([&](int, float s, float t) {
    if (softmax.empty || s == -INFINITY) return;
    const float p = expf(s - softmax.top) * normalise, difference = p - t;
    loss += difference * difference;
    dot += p * difference;
  });
  const float mean = static_cast<float>(warp_sum(dot));
  row.for_each([&](int i, float s, float t) {
    const float p = softmax.empty || s == -INFINITY ? 0 : expf(s - softmax.top) * normalise;
    row.grad[i] = p == 0 ? 0 : scale * (p * (p - t - mean));
  });
  return warp_sum(loss);
}

// What one term of sequence b weighs: 1 over its elements and over the sequences that have any.
__device__ __forceinline__ double weight_of(const GateLossParams& p, int b) {
  const auto elements = [&](int of) {
    const int rows = p.cu_rows[of + 1] - p.cu_rows[of];
    return static_cast<double>(p.num_heads) * (rows - first_counted(p, rows)) *
           p.num_key_blocks[of];
  };
  int counted = 0;
  for (int other = threadIdx.x % 32; other < p.num_seqs; other += 32)
    counted += elements(other) > 0;
  counted = __reduce_add_sync(kAll, counted);
  return 1 / elements(b) / counted;
}

__global__ void __launch_bounds__(kThreads) row_loss(const __grid_constant__ GateLossParams p) {
  const int64_t r = int64_t{blockIdx.x} * kRows + threadIdx.x / 32, h = blockIdx.y;
  if (r >= p.num_rows) return;
  const int64_t at = h * p.num_rows + r;
  const int b = sequence_of(p.cu_rows, p.num_seqs, r);
  int n = 0;  // columns that count
  if (b < p.num_seqs) {
    const int rows = p.cu_rows[b + 1] - p.cu_rows[b];
    if (r - p.cu_rows[b] >= first_counted(p, rows)) n = p.num_key_blocks[b];
  }
  float* const grad = p.dscores + at * p.num_blocks;
  double loss = 0;
  if (n > 0) {
    const LossRow row{p.scores + at * p.num_blocks, p.target + at * p.num_blocks, grad, n};
    const double weight = weight_of(p, b);
    loss = weight * (p.kind == GateLoss::kl ? kl_row(row, weight) : mse_row(row, weight));
  }
  for (int64_t i = n + threadIdx.x % 32; i < p.num_blocks; i += 32) grad[i] = 0;
  if (threadIdx.x % 32 == 0) p.row_losses[at] = loss;
}

__global__ void __launch_bounds__(kSumThreads)
    sum_losses(const __grid_constant__ GateLossParams p) {
  __shared__ double sums[kSumThreads / 32];
  double sum = 0;
  for (int64_t at = threadIdx.x; at < p.num_heads * p.num_rows; at += kSumThreads) {
    sum += p.row_losses[at];
  }
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
  __syncthreads();
  if (threadIdx.x < 32) {
    sum = warp_sum(sums[threadIdx.x]);
    if (threadIdx.x == 0) *p.loss = sum;
  }
}

}  // namespace

void gate_loss_sm80(const GateLossParams& p, void* stream) {
  if (p.num_rows > 0) {
    const dim3 grid(static_cast<unsigned>((p.num_rows + kRows - 1) / kRows),
                    static_cast<unsigned>(p.num_heads));
    launch(row_loss, grid, kThreads, 0, stream, p);
  }
  launch(sum_losses, dim3(1), kSumThreads, 0, stream, p);
}

}  // namespace seer::kernels
