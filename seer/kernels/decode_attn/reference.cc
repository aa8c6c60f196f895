#include "seer/kernels/decode_attn/reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "seer/kernels/simd/element.h"

namespace seer::kernels {
namespace {

void attend_one(const DecodeAttnParams& p, int seq, int query, int head) {
  const int kv_head = static_cast<int>(int64_t{head} * p.num_kv_heads / p.num_q_heads);
  const int64_t token = int64_t{seq} * p.num_queries + query;
  const int64_t first = p.cu_k ? p.cu_k[seq] : 0;
  const int64_t len_k = p.cu_k ? p.cu_k[seq + 1] - first : p.total_k;
  const int64_t last = query + len_k - p.num_queries;
  const auto element = [&](const StridedIn& x, int64_t t, int h, int d) {
    return double(load_element(p.dtype, x.data, t * x.token_stride + h * x.head_stride + d));
  };
  std::vector<double> weights;
  std::vector<int64_t> keys;
  double top = -INFINITY, total = 0;
  for (int64_t j = 0; j <= last; ++j) {
    if (p.window > 0 && j <= last - p.window) continue;
    double score = 0;
    for (int d = 0; d < p.head_dim; ++d) {
      score += element(p.q, token, head, d) * element(p.k, first + j, kv_head, d);
    }
    keys.push_back(first + j);
    weights.push_back(score * p.scale);
    top = std::max(top, weights.back());
  }
  for (double& w : weights) total += w = std::exp(w - top);
  for (int d = 0; d < p.head_dim; ++d) {
    double sum = 0;
    for (size_t n = 0; n < keys.size(); ++n) sum += weights[n] * element(p.v, keys[n], kv_head, d);
    store_element(p.dtype, p.o.data, token * p.o.token_stride + head * p.o.head_stride + d,
                  keys.empty() ? 0.f : float(sum / total));
  }
  p.lse[head * int64_t{p.num_seqs} * p.num_queries + token] =
      keys.empty() ? -INFINITY : float(top + std::log(total));
}

}  // namespace

void decode_attn_reference(const DecodeAttnParams& p) {
  for (int seq = 0; seq < p.num_seqs; ++seq) {
    for (int query = 0; query < p.num_queries; ++query) {
      for (int head = 0; head < p.num_q_heads; ++head) attend_one(p, seq, query, head);
    }
  }
}

}  // namespace seer::kernels
