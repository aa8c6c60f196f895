#pragma once
// For tests: the cases of the gate's steps and their inputs, on the host.

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "seer/base/random.h"
#include "seer/kernels/attn_gate/attn_gate.h"
#include "seer/kernels/simd/element.h"

namespace seer::kernels {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

inline Floats normal(size_t n, uint64_t stream) {
  Random random(7, stream);
  Floats out(n);
  for (float& x : out) x = static_cast<float>(random.normal());
  return out;
}

inline Doubles widen(const Floats& x) {
  return {x.begin(), x.end()};
}

// Prefix sums of ceil(len / unit).
inline std::vector<int32_t> prefix(const std::vector<int>& lens, int unit) {
  std::vector<int32_t> out{0};
  for (const int len : lens) out.push_back(out.back() + (len + unit - 1) / unit);
  return out;
}

inline void expect_near(const Floats& got, const Doubles& want, double limit) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isnan(want[i])) {
      ASSERT_TRUE(std::isnan(got[i])) << i << ": " << got[i];
    } else if (std::isinf(want[i])) {
      ASSERT_EQ(got[i], want[i]) << i;
    } else {
      ASSERT_NEAR(got[i], want[i], limit * (1 + std::abs(want[i]))) << i;
    }
  }
}

struct PoolCase {
  const char* name;
  std::vector<int> lens;
  int heads, head_dim, block, pools;
  DType dtype;
  int padding = 3;  // elements behind a head; 8: whole vectors
  int rope_half = 0;
  int nan_every = 0;  // of the elements one in so many is NaN; 0: none
  friend void PrintTo(const PoolCase& c, std::ostream* out) { *out << c.name; }
};

// Strided tokens with room between them.
struct PoolInputs {
  explicit PoolInputs(const PoolCase& c)
      : cu(prefix(c.lens, 1)), cu_blocks(prefix(c.lens, c.block)) {
    const int64_t padding = c.padding;
    const int64_t token_stride = c.heads * (c.head_dim + padding) + 2 * padding;
    const Floats values = normal(cu.back() * token_stride, 1);
    x.resize(values.size() * size_of(c.dtype));
    for (size_t i = 0; i < values.size(); ++i) store_element(c.dtype, x.data(), i, values[i] - 2);
    for (size_t i = 0; c.nan_every > 0 && i < values.size(); i += c.nan_every) {
      store_element(c.dtype, x.data(), i, NAN);
    }
    p.x = {x.data(), token_stride, c.head_dim + padding};
    p.cu = cu.data();
    p.cu_blocks = cu_blocks.data();
    p.num_seqs = static_cast<int>(c.lens.size());
    p.num_heads = c.heads;
    p.head_dim = c.head_dim;
    p.block = c.block;
    p.num_blocks = cu_blocks.back();
    p.pools = c.pools;
    p.dtype = c.dtype;
    cos = normal(p.num_blocks * c.rope_half, 3);
    sin = normal(p.num_blocks * c.rope_half, 4);
    p.cos = c.rope_half ? cos.data() : nullptr;
    p.sin = c.rope_half ? sin.data() : nullptr;
    p.rope_half = c.rope_half;
  }
  size_t num_pooled() const {
    return p.num_blocks * p.num_heads * count_pools(p.pools) * p.head_dim;
  }
  std::vector<int32_t> cu, cu_blocks;
  std::vector<char> x;
  Floats cos, sin;
  GatePoolParams p{};
};

const PoolCase kPoolCases[] = {
    PoolCase{"all_f32", {128, 64}, 3, 64, 64, 7, DType::f32},
    PoolCase{"all_bf16", {130, 1}, 2, 128, 64, 7, DType::bf16},
    PoolCase{"vectors_bf16", {200, 70}, 3, 128, 64, 7, DType::bf16, 8},
    PoolCase{"vectors_f16_avg", {90}, 2, 64, 32, 4, DType::f16, 8},
    PoolCase{"vectors_f32_wide", {129}, 2, 288, 128, 3, DType::f32, 8},
    PoolCase{"all_f16", {67}, 2, 64, 16, 7, DType::f16},
    PoolCase{"avg_odd_tail", {33, 5, 18}, 2, 32, 16, 4, DType::f32},
    PoolCase{"max_avg_feature_tail", {37}, 3, 27, 16, 5, DType::bf16},
    PoolCase{"min_f16_feature_tail", {37}, 1, 9, 32, 2, DType::f16},
    PoolCase{"max_min_one_token", {1}, 4, 16, 128, 3, DType::f32},
    PoolCase{"empty_sequences", {0, 40, 0}, 2, 16, 16, 7, DType::f32},
    PoolCase{"nothing", {0}, 2, 16, 16, 7, DType::f32},
    // Rotated in a warp, and where the features that rotate together do not
    // meet in one.
    PoolCase{"rotated_bf16", {130, 70}, 3, 128, 64, 4, DType::bf16, 8, 64},
    PoolCase{"rotated_part_max", {90}, 2, 96, 32, 1, DType::f16, 8, 16},
    PoolCase{"rotated_min_f32", {90, 1}, 2, 64, 32, 2, DType::f32, 8, 32},
    PoolCase{"rotated_wide", {90}, 2, 288, 64, 4, DType::f32, 8, 144},
    PoolCase{"rotated_few", {90}, 2, 64, 64, 4, DType::bf16, 8, 4},
    PoolCase{"rotated_odd", {50}, 2, 33, 16, 4, DType::bf16, 3, 16},
    // NaN at every place of a block, before and behind larger and smaller values.
    PoolCase{"nan_f32", {67, 130}, 3, 64, 64, 7, DType::f32, 3, 0, 1013},
    PoolCase{"nan_bf16", {67, 131}, 3, 64, 64, 7, DType::bf16, 8, 0, 1013},
    PoolCase{"nan_f16_feature_tail", {66}, 2, 41, 16, 3, DType::f16, 3, 0, 211},
    PoolCase{"nan_turned", {200}, 2, 64, 64, 1, DType::bf16, 8, 32, 1013}};

struct ProjectCase {
  const char* name;
  int blocks, in_heads, out_heads, in_dim, out_dim, rope_half;
  bool weight;
  friend void PrintTo(const ProjectCase& c, std::ostream* out) { *out << c.name; }
};

struct ProjectInputs {
  explicit ProjectInputs(const ProjectCase& c)
      : x(normal(c.blocks * c.in_heads * c.in_dim, 1)),
        weight(normal(c.weight ? c.out_heads * c.in_dim * c.out_dim : 0, 2)),
        cos(normal(c.blocks * c.rope_half, 3)),
        sin(normal(c.blocks * c.rope_half, 4)),
        dy(normal(c.blocks * c.out_heads * c.out_dim, 5)) {
    p.x = x.data();
    p.weight = c.weight ? weight.data() : nullptr;
    p.cos = c.rope_half ? cos.data() : nullptr;
    p.sin = c.rope_half ? sin.data() : nullptr;
    p.num_blocks = c.blocks;
    p.num_in_heads = c.in_heads;
    p.num_out_heads = c.out_heads;
    p.in_dim = c.in_dim;
    p.out_dim = c.out_dim;
    p.rope_half = c.rope_half;
  }
  // All but dweight.
  GateProjectGradParams grad() const {
    GateProjectGradParams g{};
    g.x = p.x;
    g.cos = p.cos;
    g.sin = p.sin;
    g.dy = dy.data();
    g.num_blocks = p.num_blocks;
    g.num_in_heads = p.num_in_heads;
    g.num_out_heads = p.num_out_heads;
    g.in_dim = p.in_dim;
    g.out_dim = p.out_dim;
    g.rope_half = p.rope_half;
    return g;
  }
  Floats x, weight, cos, sin, dy;
  GateProjectParams p{};
};

const ProjectCase kWeighted[] = {{"single", 9, 2, 8, 96, 32, 16, true},
                                 {"rope_of_a_part", 5, 3, 3, 48, 24, 8, true},
                                 {"no_rope", 7, 1, 7, 33, 17, 0, true},
                                 {"many_blocks", 301, 1, 2, 100, 40, 20, true},
                                 {"no_blocks", 0, 1, 2, 8, 8, 4, true}};
const ProjectCase kUnweighted[] = {{"no_weight", 4, 3, 3, 32, 32, 16, false},
                                   {"copy", 4, 3, 3, 20, 20, 0, false}};

inline std::string case_name(const testing::TestParamInfo<ProjectCase>& info) {
  return info.param.name;
}

struct ScoreCase {
  const char* name;
  std::vector<int> q_lens, k_lens;
  int q_heads, gate_heads, dim, block;
  friend void PrintTo(const ScoreCase& c, std::ostream* out) { *out << c.name; }
};

struct ScoreInputs {
  explicit ScoreInputs(const ScoreCase& c)
      : cu_q(prefix(c.q_lens, 1)),
        cu_k(prefix(c.k_lens, 1)),
        cu_rows(prefix(c.q_lens, c.block)),
        cu_blocks(prefix(c.k_lens, c.block)),
        q(normal(cu_rows.back() * c.q_heads * c.dim, 1)),
        k(normal(cu_blocks.back() * c.gate_heads * c.dim, 2)) {
    p.q_gate = q.data();
    p.k_gate = k.data();
    p.cu_q = cu_q.data();
    p.cu_k = cu_k.data();
    p.cu_rows = cu_rows.data();
    p.cu_blocks = cu_blocks.data();
    p.num_seqs = static_cast<int>(c.q_lens.size());
    p.num_q_heads = c.q_heads;
    p.num_gate_heads = c.gate_heads;
    p.gate_dim = c.dim;
    p.num_rows = cu_rows.back();
    p.total_blocks = cu_blocks.back();
    for (const int len : c.k_lens) {
      p.num_blocks = std::max<int64_t>(p.num_blocks, (len + c.block - 1) / c.block);
    }
    p.block = c.block;
    p.scale = 1 / std::sqrt(static_cast<float>(c.dim));
  }
  std::vector<int32_t> cu_q, cu_k, cu_rows, cu_blocks;
  Floats q, k;
  GateScoreParams p{};
};

const ScoreCase kScoreCases[] = {ScoreCase{"whole", {96}, {96}, 2, 2, 32, 16},
                                 ScoreCase{"gqa_7_odd_tail", {109}, {109}, 7, 1, 32, 16},
                                 ScoreCase{"packed", {20, 1, 50}, {20, 1, 50}, 4, 2, 24, 16},
                                 ScoreCase{"chunked", {32, 16}, {96, 16}, 2, 1, 16, 16},
                                 ScoreCase{"chunk_off_the_grid", {35}, {163}, 2, 2, 17, 64},
                                 ScoreCase{"q_longer_than_k", {70}, {30}, 2, 1, 16, 16},
                                 ScoreCase{"empty_sequence", {0, 33, 0}, {0, 33, 16}, 2, 1, 16, 16},
                                 ScoreCase{"many_rows", {1100}, {1200}, 2, 1, 8, 16}};

}  // namespace seer::kernels
