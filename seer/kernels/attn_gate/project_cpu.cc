// Projection of pooled features to gate vectors, a weight per head, then RoPE; and its gradient.

#include "seer/kernels/attn_gate/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "seer/kernels/attn_gate/project_cpu.cc"
#include <hwy/foreach_target.h>
// foreach_target.h must come first.
#include <hwy/highway.h>

#include <algorithm>
#include <cstddef>
#include <vector>

#include "seer/kernels/simd/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seer::kernels::HWY_NAMESPACE {
namespace {

constexpr int64_t kRowTile = 96;      // blocks that one task projects
constexpr int64_t kFeatureTile = 96;  // rows of a weight's gradient that one task sums
constexpr int64_t kGradChunk = 192;   // blocks rotated back at a time

// Rotates features (i, i + half) by the angle of cos and sin; sign -1 rotates back.
HWY_INLINE void rotate(float* y, const float* cos, const float* sin, int half, float sign) {
  for (int i = 0; i < half; ++i) {
    const float a = y[i], b = y[i + half], s = sign * sin[i];
    y[i] = a * cos[i] - b * s;
    y[i + half] = b * cos[i] + a * s;
  }
}

void project_rows(const GateProjectParams& p, int64_t h, int64_t begin, int64_t end) {
  const int64_t in_head = h * p.num_in_heads / p.num_out_heads;
  const int64_t x_row = static_cast<int64_t>(p.num_in_heads) * p.in_dim;
  const int64_t y_row = static_cast<int64_t>(p.num_out_heads) * p.out_dim;
  const float* x = p.x + begin * x_row + in_head * p.in_dim;
  float* y = p.y + begin * y_row + h * p.out_dim;
  if (p.weight) {
    gemm({.m = end - begin,
          .n = p.out_dim,
          .k = p.in_dim,
          .a = x,
          .a_row = x_row,
          .a_col = 1,
          .b = p.weight + h * p.in_dim * p.out_dim,
          .b_row = p.out_dim,
          .c = y,
          .c_row = y_row,
          .accumulate = false});
  } else if (x != y) {
    for (int64_t r = 0; r < end - begin; ++r) std::copy_n(x + r * x_row, p.in_dim, y + r * y_row);
  }
  if (!p.cos) return;
  for (int64_t r = begin; r < end; ++r) {
    rotate(y + (r - begin) * y_row, p.cos + r * p.rope_half, p.sin + r * p.rope_half, p.rope_half,
           1);
  }
}

void attn_gate_project(const GateProjectParams& p) {
  const int64_t tiles = (p.num_blocks + kRowTile - 1) / kRowTile;
#pragma omp parallel for collapse(2) schedule(dynamic)
  for (int64_t h = 0; h < p.num_out_heads; ++h) {
    for (int64_t t = 0; t < tiles; ++t) {
      project_rows(p, h, t * kRowTile, std::min((t + 1) * kRowTile, p.num_blocks));
    }
  }
}

// Rows begin .. end - 1 of dweight[h], summed over all blocks in their order.
void project_grad_rows(const GateProjectGradParams& p, int64_t h, int64_t begin, int64_t end,
                       std::vector<float>& rotated) {
  const int64_t in_head = h * p.num_in_heads / p.num_out_heads;
  const int64_t x_row = static_cast<int64_t>(p.num_in_heads) * p.in_dim;
  const int64_t y_row = static_cast<int64_t>(p.num_out_heads) * p.out_dim;
  rotated.resize(kGradChunk * p.out_dim);
  for (int64_t r0 = 0; r0 < p.num_blocks; r0 += kGradChunk) {
    const int64_t rows = std::min(kGradChunk, p.num_blocks - r0);
    for (int64_t r = 0; r < rows; ++r) {
      float* row = rotated.data() + r * p.out_dim;
      std::copy_n(p.dy + (r0 + r) * y_row + h * p.out_dim, p.out_dim, row);
      if (p.cos) {
        const int64_t at = (r0 + r) * p.rope_half;
        rotate(row, p.cos + at, p.sin + at, p.rope_half, -1);
      }
    }
    gemm({.m = end - begin,
          .n = p.out_dim,
          .k = rows,
          .a = p.x + r0 * x_row + in_head * p.in_dim + begin,
          .a_row = 1,
          .a_col = x_row,
          .b = rotated.data(),
          .b_row = p.out_dim,
          .c = p.dweight + (h * p.in_dim + begin) * p.out_dim,
          .c_row = p.out_dim,
          .accumulate = true});
  }
}

void attn_gate_project_grad(const GateProjectGradParams& p) {
  const int64_t tiles = (p.in_dim + kFeatureTile - 1) / kFeatureTile;
#pragma omp parallel
  {
    std::vector<float> rotated;
#pragma omp for collapse(2) schedule(dynamic)
    for (int64_t h = 0; h < p.num_out_heads; ++h) {
      for (int64_t t = 0; t < tiles; ++t) {
        project_grad_rows(p, h, t * kFeatureTile,
                          std::min<int64_t>((t + 1) * kFeatureTile, p.in_dim), rotated);
      }
    }
  }
}

}  // namespace
}  // namespace seer::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seer::kernels {

HWY_EXPORT(attn_gate_project);
HWY_EXPORT(attn_gate_project_grad);
void attn_gate_project_cpu(const GateProjectParams& p) {
  HWY_DYNAMIC_DISPATCH(attn_gate_project)(p);
}
void attn_gate_project_grad_cpu(const GateProjectGradParams& p) {
  HWY_DYNAMIC_DISPATCH(attn_gate_project_grad)(p);
}

}  // namespace seer::kernels
#endif
