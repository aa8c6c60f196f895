#include "seer/kernels/pooled_attn/reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "seer/kernels/simd/element.h"

namespace seer::kernels {
namespace {

using Params = PooledAttnParams;

// Softmax weights of query i (of sequence b) for the keys that it sees; writes its lse.
std::vector<double> weights(const Params& p, int b, int64_t i, int head, int kv_head) {
  const int64_t len_q = p.cu_q[b + 1] - p.cu_q[b], len_k = p.cu_k[b + 1] - p.cu_k[b];
  const int64_t last = p.causal ? i - p.cu_q[b] + len_k - len_q : len_k - 1;
  std::vector<double> out;
  double top = -INFINITY, total = 0;
  for (int64_t j = 0; j <= last; ++j) {
    double sum = 0;
    for (int d = 0; d < p.head_dim; ++d) {
      sum += double(load_element(p.dtype, p.q.data,
                                 i * p.q.token_stride + head * p.q.head_stride + d)) *
             load_element(p.dtype, p.k.data,
                          (p.cu_k[b] + j) * p.k.token_stride + kv_head * p.k.head_stride + d);
    }
    out.push_back(sum * p.scale);
    top = std::max(top, out.back());
  }
  for (double& w : out) total += w = std::exp(w - top);
  for (double& w : out) w /= total;
  p.lse[head * p.total_q + i] = out.empty() ? -INFINITY : float(top + std::log(total));
  return out;
}

void attend(const Params& p, int b, int64_t i, int head, std::vector<double>& map) {
  const int kv_head = int(int64_t{head} * p.num_kv_heads / p.num_q_heads);
  const std::vector<double> w = weights(p, b, i, head, kv_head);
  for (int d = 0; d < p.head_dim; ++d) {
    double sum = 0;
    for (size_t j = 0; j < w.size(); ++j) {
      sum += w[j] * load_element(p.dtype, p.v.data,
                                 (p.cu_k[b] + int64_t(j)) * p.v.token_stride +
                                     kv_head * p.v.head_stride + d);
    }
    store_element(p.dtype, p.o.data, i * p.o.token_stride + head * p.o.head_stride + d, float(sum));
  }
  const int64_t row = p.cu_rows[b] + (i - p.cu_q[b]) / p.block_q;
  const int64_t map_head = int64_t{head} * p.num_map_heads / p.num_q_heads;
  double* to = map.data() + (map_head * p.num_rows + row) * p.num_blocks;
  for (size_t j = 0; j < w.size(); ++j) {
    double& top = to[j / p.block_k];
    if (w[j] > top || std::isnan(w[j])) top = w[j];  // NaN stays
  }
}

}  // namespace

void pooled_attn_reference(const Params& p) {
  std::vector<double> map(static_cast<size_t>(p.num_map_heads * p.num_rows * p.num_blocks), 0.0);
  for (int b = 0; b < p.num_seqs; ++b) {
    for (int64_t i = p.cu_q[b]; i < p.cu_q[b + 1]; ++i) {
      for (int head = 0; head < p.num_q_heads; ++head) attend(p, b, i, head, map);
    }
  }
  for (int64_t row = 0; row < p.num_map_heads * p.num_rows; ++row) {
    double sum = 0;
    for (int64_t j = 0; j < p.num_blocks; ++j) sum += map[row * p.num_blocks + j];
    const double divisor = p.normalise && sum > 0 ? sum : 1;
    for (int64_t j = 0; j < p.num_blocks; ++j) {
      p.map[row * p.num_blocks + j] = float(map[row * p.num_blocks + j] / divisor);
    }
  }
}

}  // namespace seer::kernels
