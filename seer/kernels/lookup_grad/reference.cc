#include "seer/kernels/lookup_grad/reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "seer/kernels/simd/element.h"

namespace seer::kernels {
namespace {

double element(const LookupGradParams& p, const StridedIn& x, int64_t token, int head, int d) {
  return load_double(p.dtype, x.data, token * x.token_stride + head * x.head_stride + d);
}

// Of a query and a key block: the largest score, and the key that has it.
struct Maximum {
  double score = -INFINITY;
  int64_t key = -1;  // token
};

Maximum maximum(const LookupGradParams& p, int seq, int head, int64_t i, int64_t block) {
  Maximum top;
  const int64_t last = std::min(p.last_key(seq, i), (block + 1) * p.block - 1);
  for (int64_t j = block * p.block; j <= last; ++j) {
    const int64_t key = p.key_token(seq, j);
    double score = 0;
    for (int d = 0; d < p.head_dim; ++d) {
      score += element(p, p.q, p.cu_q[seq] + i, head, d) * element(p, p.k, key, head, d);
    }
    score = score * p.scale - p.lse[head * p.total_q + p.cu_q[seq] + i];
    if (score > top.score) top = {score, key};
  }
  return top;
}

// A row of a head; `dq`, `dk`: [tokens, L, r].
void add_row(const LookupGradParams& p, int seq, int head, int64_t row, std::vector<double>& dq,
             std::vector<double>& dk) {
  const int64_t first = row * p.block, queries = std::min<int64_t>(p.block, p.len_q(seq) - first),
                blocks = (p.len_k(seq) + p.block - 1) / p.block;
  std::vector<std::vector<Maximum>> maxima(queries);
  std::vector<std::vector<double>> weights(queries, std::vector<double>(blocks, 0.0));
  for (int64_t i = 0; i < queries; ++i) {
    for (int64_t n = 0; n < blocks; ++n) {
      maxima[i].push_back(maximum(p, seq, head, first + i, n));
    }
  }
  std::vector<double> sums(queries, 0.0);
  for (int64_t n = 0; n < blocks; ++n) {
    int64_t largest = -1;
    double top = -INFINITY;
    for (int64_t i = 0; i < queries; ++i) {
      if (maxima[i][n].score > top) top = maxima[i][n].score, largest = i;
    }
    if (largest < 0) continue;
    const double g = p.dscores[(head * p.num_rows + p.cu_rows[seq] + row) * p.num_blocks + n];
    weights[largest][n] = g;
    sums[largest] += g;
  }
  for (int64_t i = 0; i < queries; ++i) {
    const int64_t query = p.cu_q[seq] + first + i;
    for (int64_t n = 0; n < blocks; ++n) {
      const auto& [score, key] = maxima[i][n];
      if (key < 0) continue;
      if (sums[i] != 0) weights[i][n] -= sums[i] * std::exp(score);
      const double w = weights[i][n] * p.scale;
      for (int f = 0; f < p.head_dim && w != 0; ++f) {
        dq[(query * p.num_q_heads + head) * p.head_dim + f] += w * element(p, p.k, key, head, f);
        dk[(key * p.num_q_heads + head) * p.head_dim + f] += w * element(p, p.q, query, head, f);
      }
    }
  }
}

}  // namespace

void lookup_grad_reference(const LookupGradParams& p) {
  const auto features = static_cast<size_t>(p.num_q_heads * p.head_dim);
  std::vector<double> dq(p.total_q * features), dk(p.total_k * features);
  for (int seq = 0; seq < p.num_seqs; ++seq) {
    for (int head = 0; head < p.num_q_heads; ++head) {
      for (int64_t row = 0; row < p.cu_rows[seq + 1] - p.cu_rows[seq]; ++row) {
        add_row(p, seq, head, row, dq, dk);
      }
    }
  }
  std::copy(dq.begin(), dq.end(), p.dq);
  std::copy(dk.begin(), dk.end(), p.dk);
}

}  // namespace seer::kernels
