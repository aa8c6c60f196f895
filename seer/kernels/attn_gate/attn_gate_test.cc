// Every step against plain loops in double, its gradient against finite differences of them.

#include "seer/kernels/attn_gate/attn_gate.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "seer/kernels/attn_gate/reference.h"
#include "seer/kernels/attn_gate/testing/attn_gate_cases.h"

namespace seer::kernels {
namespace {

const Device kCpu;

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
  EXPECT_EQ(one.size(), three.size());
  EXPECT_EQ(std::memcmp(one.data(), three.data(), one.size() * sizeof(float)), 0);
  return three;
}

class GatePool : public testing::TestWithParam<PoolCase> {};

TEST_P(GatePool, CpuAgreesWithReference) {
  PoolInputs in(GetParam());
  const Floats got = same_for_any_threads([&] {
    Floats out(in.num_pooled(), NAN);
    in.p.pooled = out.data();
    attn_gate_pool(in.p, kCpu);
    return out;
  });
  expect_near(got, reference::attn_gate_pool(in.p), 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Cases, GatePool, testing::ValuesIn(kPoolCases),
                         [](const auto& test) { return std::string(test.param.name); });

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
  GateProjectGradParams g = in.grad();
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

INSTANTIATE_TEST_SUITE_P(Weighted, GateProject, testing::ValuesIn(kWeighted), case_name);
INSTANTIATE_TEST_SUITE_P(Unweighted, GateProject, testing::ValuesIn(kUnweighted), case_name);
INSTANTIATE_TEST_SUITE_P(Weighted, GateProjectGrad, testing::ValuesIn(kWeighted), case_name);

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

INSTANTIATE_TEST_SUITE_P(Cases, GateScore, testing::ValuesIn(kScoreCases),
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

TEST(AttnGate, EveryImplementationIsNamedWhereNoneRuns) {
  ScoreInputs in({"", {16}, {16}, 1, 1, 8, 16});
  try {
    attn_gate_score(in.p, Device{75, 40});
    FAIL();
  } catch (const Error& error) {
    const std::string what = error.what();
    EXPECT_NE(what.find("sm80: "), what.npos) << what;
    EXPECT_NE(what.find("cpu: the tensors are on a GPU"), what.npos) << what;
  }
}

}  // namespace
}  // namespace seer::kernels
