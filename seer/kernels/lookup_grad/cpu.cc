// First the pairs, a row of one head per task, which gives dq, too; then dk, a key block of one head per task.

#include "seer/kernels/lookup_grad/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "seer/kernels/lookup_grad/cpu.cc"
#include <hwy/foreach_target.h>
// foreach_target.h must come first.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "seer/kernels/attention/checks.h"
#include "seer/kernels/row_blocks.h"
#include "seer/kernels/simd/element.h"
#include "seer/kernels/simd/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seer::kernels::HWY_NAMESPACE {
namespace {

using Params = LookupGradParams;

void read_token(const Params& p, const StridedIn& x, int64_t token, int head, float* to,
                int64_t step) {
  const int64_t at = token * x.token_stride + head * x.head_stride;
  for (int d = 0; d < p.head_dim; ++d) to[d * step] = load_element(p.dtype, x.data, at + d);
}

// Tokens [begin, begin + n) of a head in f32: rows [n, r], or columns [r, block].
void read_rows(const Params& p, const StridedIn& x, int64_t begin, int64_t n, int head, float* to) {
  for (int64_t i = 0; i < n; ++i) read_token(p, x, begin + i, head, to + i * p.head_dim, 1);
}
void read_columns(const Params& p, const StridedIn& x, int64_t begin, int64_t n, int head,
                  float* to) {
  for (int64_t i = 0; i < n; ++i) read_token(p, x, begin + i, head, to + i, p.block);
}

int32_t& pair_of(const Params& p, int head, int64_t row, int64_t block) {
  return p.pairs[(head * p.num_rows + row) * p.num_blocks + block];
}
float scaled_gradient(const Params& p, int head, int64_t row, int64_t block) {
  return p.scale * p.dscores[(head * p.num_rows + row) * p.num_blocks + block];
}

struct Scratch {
  explicit Scratch(const Params& p)
      : rows(p.block * p.head_dim), columns(rows.size()), scores(p.block * p.block) {}
  std::vector<float> rows, columns, scores;
};

// to [head_dim] += d * token of x.
void add_token(const Params& p, float d, const StridedIn& x, int64_t token, int head, float* to) {
  const int64_t at = token * x.token_stride + head * x.head_stride;
  for (int f = 0; f < p.head_dim; ++f) to[f] += d * load_element(p.dtype, x.data, at + f);
}

void row_task(const Params& p, int head, int64_t row, Scratch& s) {
  const int seq = sequence_of(p.cu_rows, p.num_seqs, row);
  const int64_t first = (row - p.cu_rows[seq]) * p.block, r = p.head_dim;
  const int64_t queries = std::min<int64_t>(p.block, p.len_q(seq) - first);
  const int64_t token = p.cu_q[seq] + first, step = p.num_q_heads * r;
  float* dq = p.dq + token * step + head * r;
  for (int64_t i = 0; i < queries; ++i) std::fill_n(dq + i * step, r, 0.f);
  read_rows(p, p.q, token, queries, head, s.rows.data());
  for (int64_t n = 0; n < p.num_blocks; ++n) {
    const int64_t key0 = n * p.block;
    int32_t& pair = pair_of(p, head, row, n);
    pair = -1;
    const int64_t keys =
        std::min<int64_t>(p.block, p.last_key(seq, first + queries - 1) + 1 - key0);
    if (keys <= 0) continue;
    read_columns(p, p.k, p.key_token(seq, key0), keys, head, s.columns.data());
    gemm({.m = queries,
          .n = keys,
          .k = r,
          .a = s.rows.data(),
          .a_row = r,
          .a_col = 1,
          .b = s.columns.data(),
          .b_row = p.block,
          .c = s.scores.data(),
          .c_row = p.block,
          .accumulate = false});
    float top = -INFINITY;
    for (int64_t i = 0; i < queries; ++i) {
      const float lse = p.lse[head * p.total_q + token + i];
      const int64_t seen = std::min(keys, p.last_key(seq, first + i) + 1 - key0);
      for (int64_t j = 0; j < seen; ++j) {
        const float score = s.scores[i * p.block + j] * p.scale - lse;
        if (score > top) top = score, pair = static_cast<int32_t>(i * p.block + j);
      }
    }
    if (pair < 0) continue;
    add_token(p, scaled_gradient(p, head, row, n), p.k, p.key_token(seq, key0 + pair % p.block),
              head, dq + pair / p.block * step);
  }
}

void block_task(const Params& p, int head, int seq, int64_t block) {
  const int64_t key0 = block * p.block, r = p.head_dim, step = p.num_kv_heads * r;
  const int64_t keys = std::min<int64_t>(p.block, p.len_k(seq) - key0);
  if (keys <= 0) return;
  float* dk = p.dk + p.key_token(seq, key0) * step + head * r;
  for (int64_t j = 0; j < keys; ++j) std::fill_n(dk + j * step, r, 0.f);
  for (int64_t row = p.cu_rows[seq]; row < p.cu_rows[seq + 1]; ++row) {
    const int32_t pair = pair_of(p, head, row, block);
    if (pair < 0) continue;
    const int64_t query = p.cu_q[seq] + (row - p.cu_rows[seq]) * p.block + pair / p.block;
    add_token(p, scaled_gradient(p, head, row, block), p.q, query, head,
              dk + pair % p.block * step);
  }
}

void lookup_grad(const Params& p) {
#pragma omp parallel
  {
    Scratch scratch(p);
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t row = p.num_rows - 1; row >= 0; --row) {
      for (int head = 0; head < p.num_q_heads; ++head) row_task(p, head, row, scratch);
    }
#pragma omp for collapse(3) schedule(dynamic)
    for (int seq = 0; seq < p.num_seqs; ++seq) {
      for (int64_t block = 0; block < p.num_blocks; ++block) {
        for (int head = 0; head < p.num_q_heads; ++head) block_task(p, head, seq, block);
      }
    }
  }
}

}  // namespace
}  // namespace seer::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seer::kernels {

HWY_EXPORT(lookup_grad);
void lookup_grad_cpu(const LookupGradParams& p) {
  check_sequences("lookup_grad", p, p.cu_rows, p.num_rows, p.block);
  HWY_DYNAMIC_DISPATCH(lookup_grad)(p);
}

}  // namespace seer::kernels
#endif
