#include "seer/kernels/block_sparse_attn/reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "seer/kernels/simd/element.h"

namespace seer::kernels {
namespace {

using Params = BlockSparseAttnParams;

double score(const Params& p, int64_t i, int64_t j, int head, int kv_head) {
  double sum = 0;
  for (int d = 0; d < p.head_dim; ++d) {
    sum +=
        double(load_element(p.dtype, p.q.data, i * p.q.token_stride + head * p.q.head_stride + d)) *
        load_element(p.dtype, p.k.data, j * p.k.token_stride + kv_head * p.k.head_stride + d);
  }
  return sum * p.scale;
}

// The keys that query i (of sequence b) sees, in the packed numbering.
std::vector<int64_t> visible_keys(const Params& p, int b, int64_t i, int head) {
  const BlockList& lists = p.lists;
  const int64_t local = i - p.cu_q[b];
  const int64_t len_q = p.cu_q[b + 1] - p.cu_q[b], len_k = p.cu_k[b + 1] - p.cu_k[b];
  const int64_t row = lists.cu_rows[b] + local / lists.block_q;
  const int64_t entry = int64_t{head} * lists.num_heads / p.num_q_heads * lists.num_rows + row;
  std::vector<int64_t> keys;
  for (int n = 0; n < lists.count[entry]; ++n) {
    const int64_t first = int64_t{lists.list[lists.begin[entry] + n]} * lists.block_k;
    for (int64_t j = first; j < std::min(first + lists.block_k, len_k); ++j) {
      if (!p.causal || j <= local + len_k - len_q) keys.push_back(p.cu_k[b] + j);
    }
  }
  return keys;
}

void attend(const Params& p, int b, int64_t i, int head) {
  const int kv_head = int(int64_t{head} * p.num_kv_heads / p.num_q_heads);
  const std::vector<int64_t> keys = visible_keys(p, b, i, head);
  std::vector<double> weights;
  double top = -INFINITY, total = 0;
  for (const int64_t j : keys) {
    weights.push_back(score(p, i, j, head, kv_head));
    top = std::max(top, weights.back());
  }
  for (double& w : weights) total += w = std::exp(w - top);
  for (int d = 0; d < p.head_dim; ++d) {
    double sum = 0;
    for (size_t n = 0; n < keys.size(); ++n) {
      sum += weights[n] * load_element(p.dtype, p.v.data,
                                       keys[n] * p.v.token_stride + kv_head * p.v.head_stride + d);
    }
    store_element(p.dtype, p.o.data, i * p.o.token_stride + head * p.o.head_stride + d,
                  keys.empty() ? 0.f : float(sum / total));
  }
  p.lse[head * p.total_q + i] = keys.empty() ? -INFINITY : float(top + std::log(total));
}

}  // namespace

void block_sparse_attn_reference(const Params& p) {
  for (int b = 0; b < p.num_seqs; ++b) {
    for (int64_t i = p.cu_q[b]; i < p.cu_q[b + 1]; ++i) {
      for (int head = 0; head < p.num_q_heads; ++head) attend(p, b, i, head);
    }
  }
}

}  // namespace seer::kernels
