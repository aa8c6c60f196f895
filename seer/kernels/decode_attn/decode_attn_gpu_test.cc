// Every kernel of this GPU against the reference in double, on the named odd cases.

#include <gtest/gtest.h>

#include <cstring>
#include <optional>

#include "seer/kernels/decode_attn/decode_attn.h"
#include "seer/kernels/decode_attn/decode_attn_case.h"
#include "seer/kernels/gpu_run.h"

namespace seer::kernels {
namespace {

// A call whose tensors are on the GPU, NaN behind them and in o, lse and scratch before the kernel.
class DeviceCall {
 public:
  // `split`: keys in a piece; 0: as many as the op itself takes.
  DeviceCall(DecodeAttnCall& call, int split)
      : params_(call.params()),
        q_(call.q.bytes, kBehind),
        k_(call.k.bytes, kBehind),
        v_(call.v.bytes, kBehind),
        o_(call.o.bytes.size()),
        lse_(call.lse.size() * sizeof(float)),
        cu_k_(call.cu_k) {
    params_.q.data = q_.as<void>();
    params_.k.data = k_.as<void>();
    params_.v.data = v_.as<void>();
    params_.o.data = o_.as<void>();
    params_.lse = lse_.as<float>();
    params_.cu_k = cu_k_.as<int32_t>();
    params_.split = split > 0 ? split : decode_attn_split(params_, cuda_device(0));
    partials_.emplace(static_cast<size_t>(decode_attn_partials(params_)) * sizeof(float));
    params_.partials = partials_->as<float>();
  }
  const DecodeAttnParams& params() const { return params_; }
  void download(DecodeAttnCall& call) const {
    o_.download(call.o.bytes);
    lse_.download(call.lse);
  }

 private:
  static constexpr size_t kBehind = 64 * 256 * 2;
  DecodeAttnParams params_;
  DeviceBuffer q_, k_, v_, o_, lse_, cu_k_;
  std::optional<DeviceBuffer> partials_;
};

class DecodeAttnGpuCases : public OnGpu<testing::TestWithParam<DecodeAttnCase>> {};

TEST_P(DecodeAttnGpuCases, EveryKernelMatchesTheReference) {
  for (const DType dtype : {DType::bf16, DType::f16}) {
    SCOPED_TRACE(name(dtype));
    for (const int split : {0, 64, 80, 1024}) {
      SCOPED_TRACE(message("split ", split));
      DecodeAttnCall call(GetParam(), dtype);
      const DeviceCall on_device(call, split);
      visit_kernels(decode_attn_impls(), on_device.params(), [&](const auto& kernel) {
        kernel.run(on_device.params(), nullptr);
        on_device.download(call);
        EXPECT_EQ(far_from_reference(call, o_limits_of_rounded_p(dtype)), "");
      });
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, DecodeAttnGpuCases, testing::ValuesIn(kDecodeAttnCases),
                         [](const auto& info) { return std::string(info.param.name); });

class DecodeAttnGpu : public OnGpu<> {};

TEST_F(DecodeAttnGpu, HeadSizesOfGpusAreTaken) {
  for (const int head_dim : {64, 96, 128, 256}) {
    SCOPED_TRACE(head_dim);
    DecodeAttnCall call({.name = "", .k_lens = {70}, .head_dim = head_dim}, DType::bf16);
    const DeviceCall on_device(call, 0);
    for_each_kernel(decode_attn_impls(), on_device.params(), [](const auto&) {});
  }
}

TEST_F(DecodeAttnGpu, OneSequenceNeedsNoPrefixSums) {
  DecodeAttnCall call({.name = "", .k_lens = {3000}, .head_dim = 128}, DType::bf16);
  const DeviceCall on_device(call, 0);
  DecodeAttnParams p = on_device.params();
  p.cu_k = nullptr;
  decode_attn(p, cuda_device(0));
  on_device.download(call);
  EXPECT_EQ(far_from_reference(call, o_limits_of_rounded_p(DType::bf16)), "");
}

TEST_F(DecodeAttnGpu, NanShowsInTheQueriesThatSeeItAndInNoOther) {
  DecodeAttnCall call({.name = "", .k_lens = {700, 20}}, DType::bf16);
  call.k.set(699, 1, 5, NAN);
  const DeviceCall on_device(call, 0);
  decode_attn(on_device.params(), cuda_device(0));
  on_device.download(call);
  for (int head = 0; head < 8; ++head) {
    EXPECT_EQ(std::isnan(call.o.at(0, head, 0)), head >= 4) << head;
    EXPECT_FALSE(std::isnan(call.o.at(1, head, 0))) << head;
  }
}

TEST_F(DecodeAttnGpu, SameBitsInEveryRunAndInAGraph) {
  DecodeAttnCall first({.name = "", .k_lens = {5000, 40, 333}, .head_dim = 128}, DType::bf16);
  const DeviceCall on_device(first, 0);
  decode_attn(on_device.params(), cuda_device(0));
  on_device.download(first);
  DecodeAttnCall again = first;
  const DeviceCall captured(again, 0);
  run_captured([&](void* stream) { decode_attn(captured.params(), cuda_device(0), stream); });
  captured.download(again);
  EXPECT_EQ(std::memcmp(first.o.bytes.data(), again.o.bytes.data(), first.o.bytes.size()), 0);
  EXPECT_EQ(std::memcmp(first.lse.data(), again.lse.data(), first.lse.size() * 4), 0);
}

}  // namespace
}  // namespace seer::kernels
