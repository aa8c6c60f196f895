// The GPU kernel against the reference in double, on the cases of the CPU's test, as a call and as a graph.

#include <gtest/gtest.h>

#include "seer/kernels/lookup_grad/lookup_grad.h"
#include "seer/kernels/lookup_grad/testing/lookup_grad_case.h"
#include "seer/kernels/testing/gpu_run.h"

namespace seer::kernels {
namespace {

// Runs `impl` on copies of a call's tensors, twice; NaN lies behind the last token.
void run_on_gpu(const Impl<LookupGradParams>& impl, LookupGradCall& call) {
  constexpr size_t kBehind = 2 * 128;
  const DeviceBuffer q(call.q.bytes, kBehind * call.q.token_stride),
      k(call.k.bytes, kBehind * call.k.token_stride), lse(call.lse), dscores(call.dscores),
      cu_q(call.cu_q), cu_k(call.cu_k), cu_rows(call.cu_rows), largest(call.largest),
      sums(call.sums), dq(call.dq.size() * sizeof(float)), dk(call.dk.size() * sizeof(float));
  LookupGradParams p = call.params();
  p.q.data = q.as<void>();
  p.k.data = k.as<void>();
  p.lse = lse.as<float>();
  p.dscores = dscores.as<float>();
  p.cu_q = cu_q.as<int32_t>();
  p.cu_k = cu_k.as<int32_t>();
  p.cu_rows = cu_rows.as<int32_t>();
  p.largest = largest.as<int32_t>();
  p.sums = sums.as<float>();
  p.dq = dq.as<float>();
  p.dk = dk.as<float>();
  impl.run(p, nullptr);
  dq.download(call.dq);
  dk.download(call.dk);
  LookupGradCall again(call);
  run_captured([&](void* stream) { impl.run(p, stream); });
  dq.download(again.dq);
  dk.download(again.dk);
  EXPECT_EQ(again.dq, call.dq);
  EXPECT_EQ(again.dk, call.dk);
}

class LookupGradGpu : public OnGpu<testing::TestWithParam<LookupGradCase>> {};

TEST_P(LookupGradGpu, EveryKernelMatchesTheReference) {
  const LookupGradCase& c = GetParam();
  for (const DType dtype : {DType::bf16, DType::f16}) {
    LookupGradCall call(c, dtype);
    const int taken = visit_kernels(lookup_grad_impls(), call.params(), [&](const auto& impl) {
      run_on_gpu(impl, call);
      EXPECT_EQ(wrong_gradient(call), "");
    });
    EXPECT_EQ(taken > 0, c.rank != 16 && c.block == 64);
  }
}

INSTANTIATE_TEST_SUITE_P(All, LookupGradGpu, testing::ValuesIn(kLookupGradCases),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace seer::kernels
