// A row of one head per task gives dq and what its queries are the largest of; then a key block of one head per task gives dk,
// from scores that are computed again.

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

int64_t entry(const Params& p, int head, int64_t row, int64_t block) {
  return (head * p.num_rows + row) * p.num_blocks + block;
}

// to [head_dim] += d * token of x.
void add_token(const Params& p, float d, const StridedIn& x, int64_t token, int head, float* to) {
  const int64_t at = token * x.token_stride + head * x.head_stride;
  for (int f = 0; f < p.head_dim; ++f) to[f] += d * load_element(p.dtype, x.data, at + f);
}

struct Maximum {
  float score;  // relative to the query's lse
  int32_t key;  // of the block; -1: none
};

// The queries of a row.
struct Row {
  int seq;
  int64_t number, first, token, queries;  // row of all; query of the sequence; token; how many
};
Row row_at(const Params& p, int64_t number) {
  const int seq = sequence_of(p.cu_rows, p.num_seqs, number);
  const int64_t first = (number - p.cu_rows[seq]) * p.block;
  return {seq, number, first, p.cu_q[seq] + first,
          std::min<int64_t>(p.block, p.len_q(seq) - first)};
}

struct Scratch {
  explicit Scratch(const Params& p)
      : rows(p.block * p.head_dim),
        columns(rows.size()),
        scores(p.block * p.block),
        maxima(p.block * p.num_blocks) {}
  std::vector<float> rows, columns, scores;  // f32 queries, keys, and their products
  std::vector<Maximum> maxima;               // [blocks, queries]
};

// Those of a row's queries, which are in s.rows, and a key block, which is in s.columns.
void find_maxima(const Params& p, int head, const Row& row, int64_t block, Scratch& s,
                 Maximum* maxima) {
  const int64_t key0 = block * p.block;
  const int64_t keys =
      std::min<int64_t>(p.block, p.last_key(row.seq, row.first + row.queries - 1) + 1 - key0);
  if (keys > 0) {
    gemm({.m = row.queries,
          .n = keys,
          .k = p.head_dim,
          .a = s.rows.data(),
          .a_row = p.head_dim,
          .a_col = 1,
          .b = s.columns.data(),
          .b_row = p.block,
          .c = s.scores.data(),
          .c_row = p.block,
          .accumulate = false});
  }
  for (int64_t i = 0; i < row.queries; ++i) {
    Maximum top = {-INFINITY, -1};
    const float lse = p.lse[head * p.total_q + row.token + i];
    const int64_t seen = std::min(keys, p.last_key(row.seq, row.first + i) + 1 - key0);
    for (int64_t j = 0; j < seen; ++j) {
      const float score = s.scores[i * p.block + j] * p.scale - lse;
      if (score > top.score) top = {score, static_cast<int32_t>(j)};
    }
    maxima[i] = top;
  }
}

void read_keys(const Params& p, int seq, int64_t block, int head, Scratch& s) {
  const int64_t key0 = block * p.block, keys = std::min<int64_t>(p.block, p.len_k(seq) - key0);
  read_columns(p, p.k, p.key_token(seq, key0), keys, head, s.columns.data());
}

// w of a query and a key block, and the scale.
float weight(const Params& p, int head, const Row& row, int64_t i, int64_t block,
             const Maximum& top) {
  const int64_t at = entry(p, head, row.number, block);
  const float sum = p.sums[head * p.total_q + row.token + i];
  float w = p.largest[at] == i ? p.dscores[at] : 0.f;
  if (sum != 0) w -= sum * std::exp(top.score);
  return w * p.scale;
}

void row_task(const Params& p, int head, int64_t number, Scratch& s) {
  const Row row = row_at(p, number);
  const int64_t r = p.head_dim, step = p.num_q_heads * r;
  float* sums = p.sums + head * p.total_q + row.token;
  std::fill_n(sums, row.queries, 0.f);
  read_rows(p, p.q, row.token, row.queries, head, s.rows.data());
  const int64_t blocks = (p.len_k(row.seq) + p.block - 1) / p.block;
  for (int64_t n = 0; n < p.num_blocks; ++n) {
    const int64_t at = entry(p, head, number, n);
    p.largest[at] = -1;
    if (n >= blocks) continue;
    Maximum* maxima = s.maxima.data() + n * p.block;
    read_keys(p, row.seq, n, head, s);
    find_maxima(p, head, row, n, s, maxima);
    float top = -INFINITY;
    for (int64_t i = 0; i < row.queries; ++i) {
      if (maxima[i].score > top) top = maxima[i].score, p.largest[at] = static_cast<int32_t>(i);
    }
    if (p.largest[at] >= 0) sums[p.largest[at]] += p.dscores[at];
  }
  for (int64_t i = 0; i < row.queries; ++i) {
    float* dq = p.dq + (row.token + i) * step + head * r;
    std::fill_n(dq, r, 0.f);
    for (int64_t n = 0; n < blocks; ++n) {
      const Maximum& top = s.maxima[n * p.block + i];
      if (top.key < 0) continue;
      const float w = weight(p, head, row, i, n, top);
      if (w != 0) add_token(p, w, p.k, p.key_token(row.seq, n * p.block + top.key), head, dq);
    }
  }
}

void block_task(const Params& p, int head, int seq, int64_t block, Scratch& s) {
  const int64_t key0 = block * p.block, r = p.head_dim, step = p.num_kv_heads * r;
  const int64_t keys = std::min<int64_t>(p.block, p.len_k(seq) - key0);
  if (keys <= 0) return;
  float* dk = p.dk + p.key_token(seq, key0) * step + head * r;
  for (int64_t j = 0; j < keys; ++j) std::fill_n(dk + j * step, r, 0.f);
  read_keys(p, seq, block, head, s);
  for (int64_t number = p.cu_rows[seq]; number < p.cu_rows[seq + 1]; ++number) {
    if (p.largest[entry(p, head, number, block)] < 0) continue;  // the row sees nothing of it
    const Row row = row_at(p, number);
    read_rows(p, p.q, row.token, row.queries, head, s.rows.data());
    find_maxima(p, head, row, block, s, s.maxima.data());
    for (int64_t i = 0; i < row.queries; ++i) {
      const Maximum& top = s.maxima[i];
      if (top.key < 0) continue;
      const float w = weight(p, head, row, i, block, top);
      if (w != 0) add_token(p, w, p.q, row.token + i, head, dk + top.key * step);
    }
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
        for (int head = 0; head < p.num_q_heads; ++head) block_task(p, head, seq, block, scratch);
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
