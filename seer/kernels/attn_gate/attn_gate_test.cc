// Every step against plain loops in double, its gradient against finite differences of them.

#include "seer/kernels/attn_gate/attn_gate.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "seer/base/random.h"
#include "seer/kernels/attn_gate/reference.h"
#include "seer/kernels/simd/element.h"

namespace seer::kernels {
namespace {

using Floats = std::vector<float>;
using Doubles = std::vector<double>;

const Device kCpu;

Floats normal(size_t n, uint64_t stream) {
  Random random(7, stream);
  Floats out(n);
  for (float& x : out) x = static_cast<float>(random.normal());
  return out;
}

Doubles widen(const Floats& x) {
  return {x.begin(), x.end()};
}

// Prefix sums of ceil(len / unit).
std::vector<int32_t> prefix(const std::vector<int>& lens, int unit) {
  std::vector<int32_t> out{0};
  for (const int len : lens) out.push_back(out.back() + (len + unit - 1) / unit);
  return out;
}

void expect_near(const Floats& got, const Doubles& want, double limit) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    if (std::isinf(want[i])) {
      ASSERT_EQ(got[i], want[i]) << i;
    } else {
      ASSERT_NEAR(got[i], want[i], limit * (1 + std::abs(want[i]))) << i;
    }
  }
}

// Both ways of the derivative of sum(weight * f(x)) along x[i]; f is linear in x, so that the step
// may be large.
double difference(const std::function<Doubles(const Doubles&)>& f, Doubles x, size_t i,
                  const Floats& weight) {
  const auto value = [&](double step) {
    const double kept = x[i];
    x[i] += step;
    const Doubles y = f(x);
    x[i] = kept;
    double sum = 0;
    for (size_t j = 0; j < y.size(); ++j) sum += std::isinf(y[j]) ? 0 : weight[j] * y[j];
    return sum;
  };
  return (value(0.5) - value(-0.5));
}

// Runs with 1 and 3 threads and wants the same bits.
Floats same_for_any_threads(const std::function<Floats()>& run) {
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  const Floats one = run();
  omp_set_num_threads(3);
  const Floats three = run();
  omp_set_num_threads(before);
  EXPECT_EQ(one, three);
  return three;
}

struct PoolCase {
  const char* name;
  std::vector<int> lens;
  int heads, head_dim, block, pools;
  DType dtype;
  friend void PrintTo(const PoolCase& c, std::ostream* out) { *out << c.name; }
};

class GatePool : public testing::TestWithParam<PoolCase> {};

TEST_P(GatePool, CpuAgreesWithReference) {
  const PoolCase& c = GetParam();
  const auto cu = prefix(c.lens, 1), cu_blocks = prefix(c.lens, c.block);
  const int64_t token_stride = c.heads * (c.head_dim + 3) + 5, head_stride = c.head_dim + 3;
  const Floats values = normal(cu.back() * token_stride, 1);
  std::vector<char> x(values.size() * size_of(c.dtype));
  for (size_t i = 0; i < values.size(); ++i) store_element(c.dtype, x.data(), i, values[i] - 2);

  GatePoolParams p{};
  p.x = {x.data(), token_stride, head_stride};
  p.cu = cu.data();
  p.cu_blocks = cu_blocks.data();
  p.num_seqs = static_cast<int>(c.lens.size());
  p.num_heads = c.heads;
  p.head_dim = c.head_dim;
  p.block = c.block;
  p.pools = c.pools;
  p.dtype = c.dtype;
  const Floats got = same_for_any_threads([&] {
    Floats out(cu_blocks.back() * c.heads * count_pools(c.pools) * c.head_dim, NAN);
    p.pooled = out.data();
    attn_gate_pool(p, kCpu);
    return out;
  });
  expect_near(got, reference::attn_gate_pool(p), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(
    Cases, GatePool,
    testing::Values(PoolCase{"all_f32", {128, 64}, 3, 64, 64, 7, DType::f32},
                    PoolCase{"all_bf16", {130, 1}, 2, 128, 64, 7, DType::bf16},
                    PoolCase{"all_f16", {67}, 2, 64, 16, 7, DType::f16},
                    PoolCase{"avg_odd_tail", {33, 5, 18}, 2, 32, 16, 4, DType::f32},
                    PoolCase{"max_avg_feature_tail", {37}, 3, 27, 16, 5, DType::bf16},
                    PoolCase{"min_f16_feature_tail", {37}, 1, 9, 32, 2, DType::f16},
                    PoolCase{"max_min_one_token", {1}, 4, 16, 128, 3, DType::f32},
                    PoolCase{"empty_sequences", {0, 40, 0}, 2, 16, 16, 7, DType::f32},
                    PoolCase{"nothing", {0}, 2, 16, 16, 7, DType::f32}),
    [](const auto& test) { return std::string(test.param.name); });

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
  Floats x, weight, cos, sin, dy;
  GateProjectParams p{};
};

class GateProject : public testing::TestWithParam<ProjectCase> {};
class GateProjectGrad : public GateProject {};

TEST_P(GateProject, CpuAgreesWithReference) {
  const ProjectCase& c = GetParam();
  ProjectInputs in(c);
  const Floats got = same_for_any_threads([&] {
    Floats y(c.blocks * c.out_heads * c.out_dim, NAN);
    in.p.y = y.data();
    attn_gate_project(in.p, kCpu);
    return y;
  });
  expect_near(got, reference::attn_gate_project(in.p, widen(in.x), widen(in.weight)), 1e-5);
}

TEST_P(GateProjectGrad, GradientAgreesWithFiniteDifferences) {
  const ProjectCase& c = GetParam();
  ProjectInputs in(c);
  GateProjectGradParams g{};
  g.x = in.p.x;
  g.cos = in.p.cos;
  g.sin = in.p.sin;
  g.dy = in.dy.data();
  g.num_blocks = c.blocks;
  g.num_in_heads = c.in_heads;
  g.num_out_heads = c.out_heads;
  g.in_dim = c.in_dim;
  g.out_dim = c.out_dim;
  g.rope_half = c.rope_half;
  const Floats got = same_for_any_threads([&] {
    Floats dweight(in.weight.size(), 1.0f);  // the gradient is added
    g.dweight = dweight.data();
    attn_gate_project_grad(g, kCpu);
    return dweight;
  });
  const auto f = [&](const Doubles& weight) {
    return reference::attn_gate_project(in.p, widen(in.x), weight);
  };
  const size_t step = in.weight.size() / 40 + 1;
  for (size_t i = 0; i < got.size(); i += step) {
    const double want = 1 + difference(f, widen(in.weight), i, in.dy);
    EXPECT_NEAR(got[i], want, 1e-5 * (1 + std::abs(want)) * std::sqrt(c.blocks)) << i;
  }
}

const ProjectCase kWeighted[] = {{"single", 9, 2, 8, 96, 32, 16, true},
                                 {"rope_of_a_part", 5, 3, 3, 48, 24, 8, true},
                                 {"no_rope", 7, 1, 7, 33, 17, 0, true},
                                 {"many_blocks", 301, 1, 2, 100, 40, 20, true},
                                 {"no_blocks", 0, 1, 2, 8, 8, 4, true}};
const ProjectCase kUnweighted[] = {{"no_weight", 4, 3, 3, 32, 32, 16, false},
                                   {"copy", 4, 3, 3, 20, 20, 0, false}};

std::string case_name(const testing::TestParamInfo<ProjectCase>& info) {
  return info.param.name;
}

INSTANTIATE_TEST_SUITE_P(Weighted, GateProject, testing::ValuesIn(kWeighted), case_name);
INSTANTIATE_TEST_SUITE_P(Unweighted, GateProject, testing::ValuesIn(kUnweighted), case_name);
INSTANTIATE_TEST_SUITE_P(Weighted, GateProjectGrad, testing::ValuesIn(kWeighted), case_name);

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

class GateScore : public testing::TestWithParam<ScoreCase> {};

TEST_P(GateScore, CpuAgreesWithReference) {
  ScoreInputs in(GetParam());
  const Floats got = same_for_any_threads([&] {
    Floats scores(in.p.num_q_heads * in.p.num_rows * in.p.num_blocks, NAN);
    in.p.scores = scores.data();
    attn_gate_score(in.p, kCpu);
    return scores;
  });
  expect_near(got, reference::attn_gate_score(in.p, widen(in.q), widen(in.k)), 1e-5);
}

TEST_P(GateScore, GradientAgreesWithFiniteDifferences) {
  ScoreInputs in(GetParam());
  const Doubles scores = reference::attn_gate_score(in.p, widen(in.q), widen(in.k));
  Floats dscores = normal(scores.size(), 9), masked = dscores;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isinf(scores[i])) masked[i] = NAN;  // must not be read into the result
  }
  Floats dq, dk;
  const Floats both = same_for_any_threads([&] {
    dq.assign(in.q.size(), NAN);
    dk.assign(in.k.size(), NAN);
    attn_gate_score_grad({in.p, masked.data(), dq.data(), dk.data()}, kCpu);
    Floats out = dq;
    out.insert(out.end(), dk.begin(), dk.end());
    return out;
  });
  Floats dk_alone(dk.size(), NAN);
  attn_gate_score_grad({in.p, masked.data(), nullptr, dk_alone.data()}, kCpu);
  EXPECT_EQ(dk_alone, dk);
  const auto of_q = [&](const Doubles& q) {
    return reference::attn_gate_score(in.p, q, widen(in.k));
  };
  const auto of_k = [&](const Doubles& k) {
    return reference::attn_gate_score(in.p, widen(in.q), k);
  };
  for (size_t i = 0; i < dq.size(); i += dq.size() / 40 + 1) {
    EXPECT_NEAR(dq[i], difference(of_q, widen(in.q), i, dscores), 3e-5) << i;
  }
  for (size_t i = 0; i < dk.size(); i += dk.size() / 40 + 1) {
    EXPECT_NEAR(dk[i], difference(of_k, widen(in.k), i, dscores), 3e-5) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(
    Cases, GateScore,
    testing::Values(ScoreCase{"whole", {96}, {96}, 2, 2, 32, 16},
                    ScoreCase{"gqa_7_odd_tail", {109}, {109}, 7, 1, 32, 16},
                    ScoreCase{"packed", {20, 1, 50}, {20, 1, 50}, 4, 2, 24, 16},
                    ScoreCase{"chunked", {32, 16}, {96, 16}, 2, 1, 16, 16},
                    ScoreCase{"chunk_off_the_grid", {35}, {163}, 2, 2, 17, 64},
                    ScoreCase{"q_longer_than_k", {70}, {30}, 2, 1, 16, 16},
                    ScoreCase{"empty_sequence", {0, 33, 0}, {0, 33, 16}, 2, 1, 16, 16},
                    ScoreCase{"many_rows", {1100}, {1200}, 2, 1, 8, 16}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(AttnGate, Refused) {
  GateProjectParams p{};
  p.num_in_heads = 2;
  p.num_out_heads = 3;
  p.in_dim = p.out_dim = 8;
  EXPECT_THROW(attn_gate_project(p, kCpu), Error);
  p.num_out_heads = 4;  // no weight, so the heads must be the same
  EXPECT_THROW(attn_gate_project(p, kCpu), Error);
  p.num_out_heads = 2;
  attn_gate_project(p, kCpu);
  p.rope_half = 5;
  EXPECT_THROW(attn_gate_project(p, kCpu), Error);
  GatePoolParams pool{};
  pool.num_heads = pool.head_dim = pool.block = 1;
  pool.pools = 8;
  EXPECT_THROW(attn_gate_pool(pool, kCpu), Error);
}

TEST(AttnGate, NoCudaImplementationIsNamed) {
  ScoreInputs in({"", {16}, {16}, 1, 1, 8, 16});
  try {
    attn_gate_score(in.p, Device{90, 132});
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("cpu: the tensors are on a GPU"), std::string::npos);
  }
}

}  // namespace
}  // namespace seer::kernels
