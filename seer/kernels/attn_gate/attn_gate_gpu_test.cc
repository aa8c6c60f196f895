// The gate's steps on a GPU: against the reference in double and, where that one has no gradient,
// against the CPU; graphs and repeated runs; large tensors.

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "seer/kernels/attn_gate/reference.h"
#include "seer/kernels/attn_gate/testing/attn_gate_cases.h"
#include "seer/kernels/testing/gpu_run.h"

namespace seer::kernels {
namespace {

const Device kCpu;

// Runs call(device, stream), which writes `out`, as it is and in a graph; wants the same bits, which
// it returns. The buffers are `sizes` floats each, one after another in the result.
Floats run_twice(const std::vector<DeviceBuffer*>& out, const std::vector<size_t>& sizes,
                 const std::function<void(const Device&, void*)>& call) {
  const Device device = cuda_device(0);
  const auto read = [&] {
    Floats all;
    for (size_t i = 0; i < out.size(); ++i) {
      Floats part(sizes[i]);
      out[i]->download(part);
      all.insert(all.end(), part.begin(), part.end());
    }
    return all;
  };
  const auto fill = [&] {
    for (size_t i = 0; i < out.size(); ++i) out[i]->upload(Floats(sizes[i], NAN));
  };
  fill();
  call(device, nullptr);
  const Floats first = read();
  fill();
  run_captured([&](void* stream) { call(device, stream); });
  const Floats again = read();
  EXPECT_EQ(std::memcmp(first.data(), again.data(), first.size() * sizeof(float)), 0);
  return first;
}

// Every kernel that takes the call writes `want` to `out`.
template <class Params>
void expect_of_each(std::span<const Impl<Params>> impls, const Params& p, DeviceBuffer& out,
                    const Doubles& want, double limit) {
  for_each_kernel(impls, p, [&](const Impl<Params>& impl) {
    const auto run = [&](const Device&, void* stream) { impl.run(p, stream); };
    expect_near(run_twice({&out}, {want.size()}, run), want, limit);
  });
}

Doubles doubles(const Floats& x) {
  return {x.begin(), x.end()};
}

class GatePoolGpu : public OnGpu<testing::TestWithParam<PoolCase>> {};

TEST_P(GatePoolGpu, AgreesWithReference) {
  PoolInputs in(GetParam());
  const Doubles want = reference::attn_gate_pool(in.p);
  const DeviceBuffer x(in.x), cu(in.cu), cu_blocks(in.cu_blocks), cos(in.cos), sin(in.sin);
  DeviceBuffer pooled(in.num_pooled() * sizeof(float));
  GatePoolParams p = in.p;
  p.x.data = x.as<void>();
  p.cu = cu.as<int32_t>();
  p.cu_blocks = cu_blocks.as<int32_t>();
  p.pooled = pooled.as<float>();
  p.cos = p.rope_half ? cos.as<float>() : nullptr;
  p.sin = p.rope_half ? sin.as<float>() : nullptr;
  const Floats got = run_twice({&pooled}, {in.num_pooled()}, [&](const Device& d, void* stream) {
    attn_gate_pool(p, d, stream);
  });
  // What rotates is rounded by the size of both features, not by that of their sum.
  expect_near(got, want, p.cos ? 2e-6 : 1e-6);
}

INSTANTIATE_TEST_SUITE_P(Cases, GatePoolGpu, testing::ValuesIn(kPoolCases),
                         [](const auto& test) { return std::string(test.param.name); });

class GateProjectGpu : public OnGpu<testing::TestWithParam<ProjectCase>> {};
class GateProjectGradGpu : public GateProjectGpu {};

TEST_P(GateProjectGpu, AgreesWithReference) {
  const ProjectCase& c = GetParam();
  ProjectInputs in(c);
  const DeviceBuffer x(in.x), weight(in.weight), cos(in.cos), sin(in.sin);
  const size_t size = size_t(c.blocks) * c.out_heads * c.out_dim;
  DeviceBuffer y(size * sizeof(float));
  GateProjectParams p = in.p;
  p.x = x.as<float>();
  p.weight = c.weight ? weight.as<float>() : nullptr;
  p.cos = c.rope_half ? cos.as<float>() : nullptr;
  p.sin = c.rope_half ? sin.as<float>() : nullptr;
  p.y = y.as<float>();
  const Doubles want = reference::attn_gate_project(in.p, widen(in.x), widen(in.weight));
  // Sums in f32, in order.
  const double limit = 1e-5 * std::max(1.0, c.in_dim / 32.0);
  expect_of_each(attn_gate_project_impls(), p, y, want, limit);
}

TEST_P(GateProjectGradGpu, AgreesWithCpuAndAdds) {
  const ProjectCase& c = GetParam();
  ProjectInputs in(c);
  Floats want(in.weight.size(), 1.0f);
  GateProjectGradParams g = in.grad();
  g.dweight = want.data();
  attn_gate_project_grad(g, kCpu);

  const DeviceBuffer x(in.x), dy(in.dy), cos(in.cos), sin(in.sin);
  DeviceBuffer dweight(want.size() * sizeof(float));
  dweight.upload(Floats(want.size(), 1.0f));
  g.x = x.as<float>();
  g.dy = dy.as<float>();
  g.cos = c.rope_half ? cos.as<float>() : nullptr;
  g.sin = c.rope_half ? sin.as<float>() : nullptr;
  g.dweight = dweight.as<float>();
  attn_gate_project_grad(g, cuda_device(0));
  Floats got(want.size());
  dweight.download(got);
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) {
    ASSERT_NEAR(got[i], want[i], 1e-5 * (1 + std::abs(want[i])) * std::sqrt(1 + c.blocks)) << i;
  }
}

// Tiles of 64 in both directions, with a rest; and without a weight.
const ProjectCase kTiles[] = {{"several_tiles", 150, 2, 4, 200, 136, 64, true},
                              {"gate_of_128", 70, 1, 2, 384, 128, 64, true},
                              {"more_than_the_chip", 700, 2, 16, 100, 128, 32, true},
                              {"turns_none", 65, 1, 1, 36, 64, 0, true}};
const ProjectCase kWide[] = {{"wide_no_weight", 30, 2, 2, 300, 300, 100, false}};

INSTANTIATE_TEST_SUITE_P(Weighted, GateProjectGpu, testing::ValuesIn(kWeighted), case_name);
INSTANTIATE_TEST_SUITE_P(Tiles, GateProjectGpu, testing::ValuesIn(kTiles), case_name);
INSTANTIATE_TEST_SUITE_P(Unweighted, GateProjectGpu, testing::ValuesIn(kUnweighted), case_name);
INSTANTIATE_TEST_SUITE_P(Wide, GateProjectGpu, testing::ValuesIn(kWide), case_name);
INSTANTIATE_TEST_SUITE_P(Weighted, GateProjectGradGpu, testing::ValuesIn(kWeighted), case_name);
INSTANTIATE_TEST_SUITE_P(Tiles, GateProjectGradGpu, testing::ValuesIn(kTiles), case_name);

class GateScoreGpu : public OnGpu<testing::TestWithParam<ScoreCase>> {};

// The inputs of a score on the GPU.
struct DeviceScore {
  explicit DeviceScore(const ScoreInputs& in)
      : q(in.q),
        k(in.k),
        cu_q(in.cu_q),
        cu_k(in.cu_k),
        cu_rows(in.cu_rows),
        cu_blocks(in.cu_blocks),
        p(in.p) {
    p.q_gate = q.as<float>();
    p.k_gate = k.as<float>();
    p.cu_q = cu_q.as<int32_t>();
    p.cu_k = cu_k.as<int32_t>();
    p.cu_rows = cu_rows.as<int32_t>();
    p.cu_blocks = cu_blocks.as<int32_t>();
  }
  DeviceBuffer q, k, cu_q, cu_k, cu_rows, cu_blocks;
  GateScoreParams p;
};

TEST_P(GateScoreGpu, AgreesWithReference) {
  ScoreInputs in(GetParam());
  const Doubles want = reference::attn_gate_score(in.p, widen(in.q), widen(in.k));
  DeviceScore call(in);
  DeviceBuffer scores(want.size() * sizeof(float));
  call.p.scores = scores.as<float>();
  expect_of_each(attn_gate_score_impls(), call.p, scores, want, 1e-5);
}

TEST_P(GateScoreGpu, GradientAgreesWithCpu) {
  ScoreInputs in(GetParam());
  Floats scores(in.p.num_q_heads * in.p.num_rows * in.p.num_blocks);
  in.p.scores = scores.data();
  attn_gate_score(in.p, kCpu);
  Floats dscores = normal(scores.size(), 9);
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isinf(scores[i])) dscores[i] = NAN;  // must not be read into the result
  }
  Floats want_q(in.q.size(), NAN), want(in.k.size(), NAN);
  attn_gate_score_grad({in.p, dscores.data(), want_q.data(), want.data()}, kCpu);

  DeviceScore call(in);
  const DeviceBuffer on_device(dscores);
  DeviceBuffer dq(in.q.size() * sizeof(float)), dk(in.k.size() * sizeof(float));
  const Floats got =
      run_twice({&dq, &dk}, {in.q.size(), in.k.size()}, [&](const Device& d, void* stream) {
        attn_gate_score_grad({call.p, on_device.as<float>(), dq.as<float>(), dk.as<float>()}, d,
                             stream);
      });
  Floats all = want_q;
  all.insert(all.end(), want.begin(), want.end());
  // Sums of a term for each block, in f32 on both sides.
  expect_near(got, doubles(all), 2e-5 * std::max(1.0, std::sqrt(in.p.num_rows / 64.0)));
  const Floats dk_alone = run_twice({&dk}, {in.k.size()}, [&](const Device& d, void* stream) {
    attn_gate_score_grad({call.p, on_device.as<float>(), nullptr, dk.as<float>()}, d, stream);
  });
  EXPECT_TRUE(std::equal(dk_alone.begin(), dk_alone.end(), got.begin() + in.q.size()));
}

// Tiles of 64 rows and key blocks of several sequences, with rests; rows a multiple of four and not.
const ScoreCase kScoreTiles[] = {
    ScoreCase{"several_tiles", {2100, 0, 1300}, {2100, 40, 1700}, 2, 1, 72, 16},
    ScoreCase{"by_four", {1072, 3}, {1072, 700}, 2, 2, 128, 16},
    ScoreCase{"many_steps", {1300, 900}, {1300, 900}, 4, 2, 260, 16},
    ScoreCase{"not_by_four", {1300}, {1300}, 2, 1, 66, 16},
    ScoreCase{"many_blocks", {33000, 100}, {33600, 100}, 1, 1, 8, 16}};

INSTANTIATE_TEST_SUITE_P(Cases, GateScoreGpu, testing::ValuesIn(kScoreCases),
                         [](const auto& test) { return std::string(test.param.name); });
INSTANTIATE_TEST_SUITE_P(Tiles, GateScoreGpu, testing::ValuesIn(kScoreTiles),
                         [](const auto& test) { return std::string(test.param.name); });

class AttnGateGpu : public OnGpu<> {};

// Scores of more than 2^31 elements; a row at the end is looked at.
TEST_F(AttnGateGpu, MoreThan2To31Scores) {
  constexpr int kHeads = 9, kRows = 16000, kBlock = 16;
  const int64_t size = int64_t{kHeads} * kRows * kRows;  // 9.2 GB of f32
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  if (free < size * sizeof(float) + (size_t{1} << 30)) GTEST_SKIP() << "needs 10 GiB of GPU memory";
  ScoreInputs in({"", {kRows * kBlock}, {kRows * kBlock}, kHeads, 1, 8, kBlock});
  DeviceScore call(in);
  DeviceBuffer scores(size * sizeof(float));
  call.p.scores = scores.as<float>();
  attn_gate_score(call.p, cuda_device(0));
  Floats row(kRows);
  for (const int r : {kRows - 1, kRows / 2}) {
    const int64_t at = (int64_t{kHeads - 1} * kRows + r) * kRows;
    check_cuda(cudaMemcpy(row.data(), scores.as<float>() + at, kRows * sizeof(float),
                          cudaMemcpyDeviceToHost),
               "copy from the GPU");
    for (int n = 0; n < kRows; n += 7) {
      double want = -INFINITY;
      if (n <= r) {
        want = 0;
        for (int i = 0; i < 8; ++i) {
          want += in.p.scale * in.q[(int64_t{r} * kHeads + kHeads - 1) * 8 + i] * in.k[n * 8 + i];
        }
      }
      if (n <= r) {
        ASSERT_NEAR(row[n], want, 1e-5) << r << " " << n;
      } else {
        ASSERT_EQ(row[n], want) << r << " " << n;
      }
    }
  }
}

}  // namespace
}  // namespace seer::kernels
