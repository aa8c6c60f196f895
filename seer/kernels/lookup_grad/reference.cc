#include "seer/kernels/lookup_grad/reference.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "seer/kernels/simd/element.h"

namespace seer::kernels {
namespace {

struct Pair {
  int64_t query = -1, key = -1;  // tokens
};

double element(const LookupGradParams& p, const StridedIn& x, int64_t token, int head, int d) {
  return load_double(p.dtype, x.data, token * x.token_stride + head * x.head_stride + d);
}

// Of the largest score in a row and a key block of a sequence.
Pair largest(const LookupGradParams& p, int seq, int head, int64_t row, int64_t block) {
  Pair pair;
  double top = -INFINITY;
  for (int64_t i = row * p.block; i < std::min((row + 1) * p.block, p.len_q(seq)); ++i) {
    const int64_t query = p.cu_q[seq] + i;
    const int64_t last = std::min(p.last_key(seq, i), (block + 1) * p.block - 1);
    for (int64_t j = block * p.block; j <= last; ++j) {
      const int64_t key = p.key_token(seq, j);
      double score = 0;
      for (int d = 0; d < p.head_dim; ++d) {
        score += element(p, p.q, query, head, d) * element(p, p.k, key, head, d);
      }
      score = score * p.scale - p.lse[head * p.total_q + query];
      if (score > top) top = score, pair = {query, key};
    }
  }
  return pair;
}

}  // namespace

void lookup_grad_reference(const LookupGradParams& p) {
  const int heads = p.num_q_heads, r = p.head_dim;
  std::vector<double> dq(static_cast<size_t>(p.total_q * heads * r)),
      dk(static_cast<size_t>(p.total_k * heads * r));
  for (int seq = 0; seq < p.num_seqs; ++seq) {
    for (int head = 0; head < heads; ++head) {
      for (int64_t row = 0; row < p.cu_rows[seq + 1] - p.cu_rows[seq]; ++row) {
        for (int64_t block = 0; block * p.block < p.len_k(seq); ++block) {
          const Pair pair = largest(p, seq, head, row, block);
          if (pair.query < 0) continue;
          const double d =
              p.scale *
              p.dscores[(head * p.num_rows + p.cu_rows[seq] + row) * p.num_blocks + block];
          for (int f = 0; f < r; ++f) {
            dq[(pair.query * heads + head) * r + f] += d * element(p, p.k, pair.key, head, f);
            dk[(pair.key * heads + head) * r + f] += d * element(p, p.q, pair.query, head, f);
          }
        }
      }
    }
  }
  std::copy(dq.begin(), dq.end(), p.dq);
  std::copy(dk.begin(), dk.end(), p.dk);
}

}  // namespace seer::kernels
