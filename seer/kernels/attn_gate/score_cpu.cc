// Scores of key blocks from gate vectors, and their gradients: causal matrix products, a tile of
// rows or of key blocks per task.

#include "seer/kernels/attn_gate/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "seer/kernels/attn_gate/score_cpu.cc"
#include <hwy/foreach_target.h>
// foreach_target.h must come first.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "seer/kernels/row_blocks.h"
#include "seer/kernels/simd/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seer::kernels::HWY_NAMESPACE {
namespace {

constexpr int64_t kRowTile = 48;  // rows of a task
constexpr int64_t kKeyTile = 64;  // key blocks made columns at a time, or of a dk task

// One sequence of a call. The axes are those of the whole call.
struct Sequence {
  int64_t len_q, len_k, row0, rows, block0, blocks;
};

Sequence sequence(const GateScoreParams& p, int b) {
  return {p.cu_q[b + 1] - p.cu_q[b],
          p.cu_k[b + 1] - p.cu_k[b],
          p.cu_rows[b],
          p.cu_rows[b + 1] - p.cu_rows[b],
          p.cu_blocks[b],
          p.cu_blocks[b + 1] - p.cu_blocks[b]};
}

int64_t visible(const GateScoreParams& p, const Sequence& s, int64_t row) {
  return row_blocks(s.len_q, s.len_k, p.block, row).end;
}

// A task of a call: tile `tile` of sequence `seq`.
struct Task {
  int seq;
  int64_t tile;
};

// Tiles of every sequence, the later ones (which see more) first.
std::vector<Task> tasks(int num_seqs, const int32_t* cu, int64_t tile) {
  std::vector<Task> out;
  for (int b = 0; b < num_seqs; ++b) {
    for (int64_t t = (cu[b + 1] - cu[b] + tile - 1) / tile - 1; t >= 0; --t) out.push_back({b, t});
  }
  return out;
}

void score_rows(const GateScoreParams& p, const Sequence& s, int64_t h, int64_t begin, int64_t end,
                std::vector<float>& columns) {
  const int64_t gate_head = h * p.num_gate_heads / p.num_q_heads, d = p.gate_dim;
  const int64_t q_row = p.num_q_heads * d, k_row = p.num_gate_heads * d;
  float* scores = p.scores + (h * p.num_rows + s.row0) * p.num_blocks;
  columns.resize(d * kKeyTile);
  const int64_t widest = visible(p, s, end - 1);
  for (int64_t n0 = 0; n0 < widest; n0 += kKeyTile) {
    const int64_t keys = std::min(kKeyTile, widest - n0);
    for (int64_t n = 0; n < keys; ++n) {
      const float* k = p.k_gate + (s.block0 + n0 + n) * k_row + gate_head * d;
      for (int64_t i = 0; i < d; ++i) columns[i * kKeyTile + n] = k[i];
    }
    gemm({.m = end - begin,
          .n = keys,
          .k = d,
          .a = p.q_gate + (s.row0 + begin) * q_row + h * d,
          .a_row = q_row,
          .a_col = 1,
          .b = columns.data(),
          .b_row = kKeyTile,
          .c = scores + begin * p.num_blocks + n0,
          .c_row = p.num_blocks,
          .accumulate = false});
  }
  for (int64_t row = begin; row < end; ++row) {
    float* out = scores + row * p.num_blocks;
    const int64_t seen = visible(p, s, row);
    for (int64_t n = 0; n < seen; ++n) out[n] *= p.scale;
    std::fill(out + seen, out + p.num_blocks, -INFINITY);
  }
}

void attn_gate_score(const GateScoreParams& p) {
  const std::vector<Task> all = tasks(p.num_seqs, p.cu_rows, kRowTile);
  const int64_t num_tasks = static_cast<int64_t>(all.size());
#pragma omp parallel
  {
    std::vector<float> columns;
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t t = 0; t < num_tasks; ++t) {
      for (int64_t h = 0; h < p.num_q_heads; ++h) {
        const Sequence s = sequence(p, all[t].seq);
        const int64_t begin = all[t].tile * kRowTile;
        score_rows(p, s, h, begin, std::min(begin + kRowTile, s.rows), columns);
      }
    }
  }
}

// Copies dscores of rows r0 .. r1 - 1 and key blocks n0 .. n1 - 1, scaled and 0 where masked, into
// `out` [r1 - r0, n1 - n0].
void copy_visible(const GateScoreGradParams& g, const Sequence& s, int64_t h, int64_t r0,
                  int64_t r1, int64_t n0, int64_t n1, std::vector<float>& out) {
  const GateScoreParams& p = g.forward;
  const int64_t width = n1 - n0;
  out.assign((r1 - r0) * width, 0.0f);
  for (int64_t row = r0; row < r1; ++row) {
    const float* in = g.dscores + (h * p.num_rows + s.row0 + row) * p.num_blocks + n0;
    float* to = out.data() + (row - r0) * width;
    const int64_t seen = std::min(visible(p, s, row) - n0, width);
    for (int64_t n = 0; n < seen; ++n) to[n] = p.scale * in[n];
  }
}

void score_grad_q(const GateScoreGradParams& g, const Sequence& s, int64_t h, int64_t begin,
                  int64_t end, std::vector<float>& part) {
  const GateScoreParams& p = g.forward;
  const int64_t gate_head = h * p.num_gate_heads / p.num_q_heads, d = p.gate_dim;
  const int64_t q_row = p.num_q_heads * d, k_row = p.num_gate_heads * d;
  const int64_t widest = visible(p, s, end - 1);
  copy_visible(g, s, h, begin, end, 0, widest, part);
  gemm({.m = end - begin,
        .n = d,
        .k = widest,
        .a = part.data(),
        .a_row = widest,
        .a_col = 1,
        .b = p.k_gate + s.block0 * k_row + gate_head * d,
        .b_row = k_row,
        .c = g.dq_gate + (s.row0 + begin) * q_row + h * d,
        .c_row = q_row,
        .accumulate = false});
}

void score_grad_k(const GateScoreGradParams& g, const Sequence& s, int64_t gate_head, int64_t begin,
                  int64_t end, std::vector<float>& part) {
  const GateScoreParams& p = g.forward;
  const int64_t group = p.num_q_heads / p.num_gate_heads, d = p.gate_dim;
  const int64_t q_row = p.num_q_heads * d, k_row = p.num_gate_heads * d;
  int64_t first = 0;  // the first row that sees any of these blocks
  while (first < s.rows && visible(p, s, first) <= begin) ++first;
  for (int64_t h = gate_head * group; h < (gate_head + 1) * group; ++h) {
    copy_visible(g, s, h, first, s.rows, begin, end, part);
    gemm({.m = end - begin,
          .n = d,
          .k = s.rows - first,
          .a = part.data(),
          .a_row = 1,
          .a_col = end - begin,
          .b = p.q_gate + (s.row0 + first) * q_row + h * d,
          .b_row = q_row,
          .c = g.dk_gate + (s.block0 + begin) * k_row + gate_head * d,
          .c_row = k_row,
          .accumulate = h > gate_head * group});
  }
}

void attn_gate_score_grad(const GateScoreGradParams& g) {
  const GateScoreParams& p = g.forward;
  const std::vector<Task> q_tasks = tasks(p.num_seqs, p.cu_rows, kRowTile);
  const std::vector<Task> k_tasks = tasks(p.num_seqs, p.cu_blocks, kKeyTile);
  const int64_t num_q = g.dq_gate ? static_cast<int64_t>(q_tasks.size()) : 0;
  const int64_t num_k = static_cast<int64_t>(k_tasks.size());
#pragma omp parallel
  {
    std::vector<float> part;
#pragma omp for collapse(2) schedule(dynamic) nowait
    for (int64_t t = 0; t < num_q; ++t) {
      for (int64_t h = 0; h < p.num_q_heads; ++h) {
        const Sequence s = sequence(p, q_tasks[t].seq);
        const int64_t begin = q_tasks[t].tile * kRowTile;
        score_grad_q(g, s, h, begin, std::min(begin + kRowTile, s.rows), part);
      }
    }
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t t = 0; t < num_k; ++t) {
      for (int64_t h = 0; h < p.num_gate_heads; ++h) {
        const Sequence s = sequence(p, k_tasks[t].seq);
        const int64_t begin = k_tasks[t].tile * kKeyTile;
        score_grad_k(g, s, h, begin, std::min(begin + kKeyTile, s.blocks), part);
      }
    }
  }
}

}  // namespace
}  // namespace seer::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seer::kernels {

HWY_EXPORT(attn_gate_score);
HWY_EXPORT(attn_gate_score_grad);
void attn_gate_score_cpu(const GateScoreParams& p) {
  HWY_DYNAMIC_DISPATCH(attn_gate_score)(p);
}
void attn_gate_score_grad_cpu(const GateScoreGradParams& p) {
  HWY_DYNAMIC_DISPATCH(attn_gate_score_grad)(p);
}

}  // namespace seer::kernels
#endif
