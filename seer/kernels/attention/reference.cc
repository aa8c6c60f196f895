#include "seer/kernels/attention/reference.h"

#include <cmath>

#include "seer/kernels/simd/element.h"

namespace seer::kernels {

std::vector<double> attend_reference(const PackedAttentionParams& p, int64_t token, int head,
                                     const std::vector<int64_t>& keys) {
  const int kv_head = head / p.group();
  const auto element = [&](const StridedIn& x, int64_t t, int h, int d) {
    return load_double(p.dtype, x.data, t * x.token_stride + h * x.head_stride + d);
  };
  std::vector<double> weights;
  double top = -INFINITY, total = 0;
  for (const int64_t j : keys) {
    double score = 0;
    for (int d = 0; d < p.head_dim; ++d) {
      score += element(p.q, token, head, d) * element(p.k, j, kv_head, d);
    }
    weights.push_back(score * p.scale);
    top = std::max(top, weights.back());
  }
  for (double& w : weights) total += w = std::exp(w - top);
  for (double& w : weights) w /= total;
  for (int d = 0; p.o.data && d < p.head_dim; ++d) {
    double sum = 0;
    for (size_t n = 0; n < keys.size(); ++n) sum += weights[n] * element(p.v, keys[n], kv_head, d);
    store_double(p.dtype, p.o.data, token * p.o.token_stride + head * p.o.head_stride + d, sum);
  }
  p.lse[head * p.total_q + token] = keys.empty() ? -INFINITY : float(top + std::log(total));
  return weights;
}

}  // namespace seer::kernels
