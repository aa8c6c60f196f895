// Every kernel of this GPU against the reference in double, on the named odd cases.

#include <gtest/gtest.h>

#include <optional>

#include "seer/kernels/attention/testing/gpu_calls.h"
#include "seer/kernels/decode_attn/decode_attn.h"
#include "seer/kernels/decode_attn/testing/decode_attn_cases.h"

namespace seer::kernels {
namespace {

class DeviceCall : public AttentionDeviceCall<DecodeAttnCall> {
 public:
  // `split`: keys in a piece; 0: as many as the op itself takes.
  DeviceCall(DecodeAttnCall& call, int split) : AttentionDeviceCall(call) {
    params_.cu_q = nullptr;
    params_.split = split > 0 ? split : decode_attn_split(params_, cuda_device(0));
    partials_.emplace(static_cast<size_t>(decode_attn_partials(params_)) * sizeof(float));
    params_.partials = partials_->as<float>();
  }

 private:
  std::optional<DeviceBuffer> partials_;
};

class DecodeAttnGpuCases : public OnGpu<testing::TestWithParam<DecodeAttnCase>> {};

TEST_P(DecodeAttnGpuCases, EveryKernelMatchesTheReference) {
  for (const DType dtype : kGpuDTypes) {
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
  EXPECT_TRUE(same_bits(first, again));
}

}  // namespace
}  // namespace seer::kernels
