#include "seer/kernels/block_sparse_attn/backward/reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "seer/kernels/simd/element.h"

namespace seer::kernels {
namespace {

using Params = BlockSparseAttnBackwardParams;

// [tokens, heads, D] in double.
struct Sums {
  int heads, head_dim;
  std::vector<double> x;
  Sums(int64_t tokens, int num_heads, int dim)
      : heads(num_heads), head_dim(dim), x(static_cast<size_t>(tokens * num_heads * dim)) {}
  double* at(int64_t token, int head) { return &x[(token * heads + head) * head_dim]; }

  void store(DType dtype, const StridedOut& to, int64_t tokens) {
    for (int64_t t = 0; t < tokens; ++t) {
      for (int h = 0; h < heads; ++h) {
        for (int d = 0; d < head_dim; ++d) {
          store_double(dtype, to.data, t * to.token_stride + h * to.head_stride + d, at(t, h)[d]);
        }
      }
    }
  }
};

struct Gradients {
  Sums q, k, v;
};

double element(const Params& p, const StridedIn& x, int64_t token, int head, int d) {
  return load_double(p.dtype, x.data, token * x.token_stride + head * x.head_stride + d);
}
double dot(const Params& p, const StridedIn& x, int64_t i, int x_head, const StridedIn& y,
           int64_t j, int y_head) {
  double sum = 0;
  for (int d = 0; d < p.head_dim; ++d) {
    sum += element(p, x, i, x_head, d) * element(p, y, j, y_head, d);
  }
  return sum;
}

// What query i of sequence b adds.
void add_query(const Params& p, int b, int64_t i, int head, Gradients& grad) {
  const BlockList& lists = p.lists;
  const int kv_head = head / p.group();
  const int64_t local = i - p.cu_q[b];
  const int64_t entry = int64_t{head / (p.num_q_heads / lists.num_heads)} * lists.num_rows +
                        lists.cu_rows[b] + local / lists.block_q;
  const double lse = p.lse[head * p.total_q + i];
  const StridedIn o = {p.o.data, p.o.token_stride, p.o.head_stride};
  const double delta = dot(p, p.grad_o, i, head, o, i, head);
  for (int n = 0; n < lists.count[entry]; ++n) {
    const int64_t first = int64_t{lists.list[lists.begin[entry] + n]} * lists.block_k;
    for (int64_t key = first; key < std::min(first + lists.block_k, p.len_k(b)); ++key) {
      if (key > p.last_key(b, local)) break;
      const int64_t j = p.key_token(b, key);
      const double weight = std::exp(p.scale * dot(p, p.q, i, head, p.k, j, kv_head) - lse);
      const double d_score =
          p.scale * weight * (dot(p, p.grad_o, i, head, p.v, j, kv_head) - delta);
      for (int d = 0; d < p.head_dim; ++d) {
        grad.q.at(i, head)[d] += d_score * element(p, p.k, j, kv_head, d);
        grad.k.at(j, kv_head)[d] += d_score * element(p, p.q, i, head, d);
        grad.v.at(j, kv_head)[d] += weight * element(p, p.grad_o, i, head, d);
      }
    }
  }
}

}  // namespace

void block_sparse_attn_backward_reference(const Params& p) {
  Gradients grad{{p.total_q, p.num_q_heads, p.head_dim},
                 {p.total_k, p.num_kv_heads, p.head_dim},
                 {p.total_k, p.num_kv_heads, p.head_dim}};
  for (int b = 0; b < p.num_seqs; ++b) {
    for (int64_t i = p.cu_q[b]; i < p.cu_q[b + 1]; ++i) {
      for (int head = 0; head < p.num_q_heads; ++head) add_query(p, b, i, head, grad);
    }
  }
  grad.q.store(p.dtype, p.grad_q, p.total_q);
  grad.k.store(p.dtype, p.grad_k, p.total_k);
  grad.v.store(p.dtype, p.grad_v, p.total_k);
}

}  // namespace seer::kernels
