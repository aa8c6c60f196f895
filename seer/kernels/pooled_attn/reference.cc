#include "seer/kernels/pooled_attn/reference.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

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
  std::vector<double> of_block((w.size() + p.block_k - 1) / p.block_k, 0.0);
  const auto take = [](double& top, double x) {
    if (x > top || std::isnan(x)) top = x;  // NaN stays
  };
  for (size_t j = 0; j < w.size(); ++j) take(of_block[j / p.block_k], w[j]);
  if (p.block_softmax && !w.empty()) {
    // Weights of keys are exp(score - lse): a common factor away from those of blocks.
    const double sum = std::accumulate(of_block.begin(), of_block.end(), 0.0);
    for (double& x : of_block) x = std::max(x / sum, std::exp2(double{kSmallestBlockWeight}));
    float& lse = p.lse[head * p.total_q + p.cu_q[b] + i];
    lse = static_cast<float>(lse + std::log(sum));
  }
  for (size_t j = 0; j < of_block.size(); ++j) take(to[j], of_block[j]);
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
