#pragma once
// The distillation loss of one layer's gate and its gradient: the contract.

#include <cstdint>

namespace seer::kernels {

enum class GateLoss {
  kl,   // sum of target * (log target - log_softmax(scores)), arXiv 2410.13276 v4
  mse,  // mean squared error of softmax(scores) against target, v1
};

// loss = (1 / elements) * sum over the counted rows; elements = Hq * (counted rows) * N_b of each
// sequence, averaged over the sequences that have any. Rows m < floor(skip * M_b) of a sequence are
// left out (published: skip = 1/4 for kl, 0 for mse); rows whose target is all zero add nothing. A
// target that is not 0 on a masked key block of a counted row, which no score can reach, is an error
// on the CPU; on a GPU, where nothing waits for the target, the loss is NaN.
// Softmax and logarithm in f32, sums in f64.
struct GateLossParams {
  const float* scores;            // [H, R, N]  -inf where masked
  const float* target;            // [H, R, N]  row-normalised pooled map
  const int32_t* cu_rows;         // [B + 1]
  const int32_t* num_key_blocks;  // [B]  N_b
  float* dscores;                 // [H, R, N]  d loss / d scores; 0 where masked or left out
  double* loss;                   // one number
  int num_seqs, num_heads;
  int64_t num_rows, num_blocks;  // R, N
  double skip;
  GateLoss kind;

  double* row_losses = nullptr;  // [H, R] memory for a GPU; the CPU needs none
};

}  // namespace seer::kernels
