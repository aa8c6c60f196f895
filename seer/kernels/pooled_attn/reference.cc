#include "seer/kernels/pooled_attn/reference.h"

#include <cmath>

#include "seer/kernels/attention/reference.h"

namespace seer::kernels {
namespace {

// Query i of sequence b.
void attend(const PooledAttnParams& p, int b, int64_t i, int head, std::vector<double>& map) {
  std::vector<int64_t> keys;
  for (int64_t j = 0; j <= p.last_key(b, i); ++j) keys.push_back(p.key_token(b, j));
  const std::vector<double> w = attend_reference(p, p.cu_q[b] + i, head, keys);
  const int64_t row = p.cu_rows[b] + i / p.block_q;
  const int64_t map_head = int64_t{head} * p.num_map_heads / p.num_q_heads;
  double* to = map.data() + (map_head * p.num_rows + row) * p.num_blocks;
  for (size_t j = 0; j < w.size(); ++j) {
    double& top = to[j / p.block_k];
    if (w[j] > top || std::isnan(w[j])) top = w[j];  // NaN stays
  }
}

}  // namespace

void pooled_attn_reference(const PooledAttnParams& p) {
  std::vector<double> map(static_cast<size_t>(p.num_map_heads * p.num_rows * p.num_blocks), 0.0);
  for (int b = 0; b < p.num_seqs; ++b) {
    for (int64_t i = 0; i < p.len_q(b); ++i) {
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
