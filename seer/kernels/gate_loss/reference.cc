#include "seer/kernels/gate_loss/reference.h"

#include <cmath>

namespace seer::kernels::reference {
namespace {

double row_loss(const GateLossParams& p, const double* scores, const float* target, int64_t n) {
  double sum = 0, mass = 0, loss = 0;
  for (int64_t j = 0; j < n; ++j) {
    sum += std::exp(scores[j]);
    if (scores[j] == -INFINITY && target[j] != 0) return NAN;
    if (scores[j] > -INFINITY) mass += target[j];
  }
  if (std::isnan(sum)) return sum;
  if (mass == 0) return 0;
  for (int64_t j = 0; j < n; ++j) {
    if (scores[j] == -INFINITY) continue;
    const double t = target[j], log_p = scores[j] - std::log(sum);
    if (p.kind == GateLoss::mse) {
      loss += (std::exp(log_p) - t) * (std::exp(log_p) - t);
    } else if (t > 0) {
      loss += t * (std::log(t) - log_p);
    }
  }
  return loss;
}

}  // namespace

double gate_loss(const GateLossParams& p, const std::vector<double>& scores) {
  double total = 0;
  int counted = 0;
  for (int b = 0; b < p.num_seqs; ++b) {
    const int64_t rows = p.cu_rows[b + 1] - p.cu_rows[b], n = p.num_key_blocks[b];
    const int64_t first = static_cast<int64_t>(std::floor(p.skip * static_cast<double>(rows)));
    if (rows == 0 || n == 0) continue;
    double sum = 0;
    for (int64_t h = 0; h < p.num_heads; ++h) {
      for (int64_t m = first; m < rows; ++m) {
        const int64_t at = (h * p.num_rows + p.cu_rows[b] + m) * p.num_blocks;
        sum += row_loss(p, scores.data() + at, p.target + at, n);
      }
    }
    total += sum / static_cast<double>(p.num_heads * (rows - first) * n);
    ++counted;
  }
  return counted > 0 ? total / counted : 0;
}

}  // namespace seer::kernels::reference
