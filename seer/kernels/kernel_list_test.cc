// The list that `seer kernels` prints.

#include "seer/kernels/kernel_list.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>

namespace seer::kernels {
namespace {

using testing::HasSubstr;

std::string reason(const Device& device, DType dtype, int head_dim, const std::string& op,
                   const std::string& implementation) {
  for (const KernelStatus& s : kernel_list(device, dtype, head_dim, 64)) {
    if (op == s.op && implementation == s.implementation) return s.why_not;
  }
  return "not in the list";
}

TEST(KernelList, EveryOperationRunsOnTheCpu) {
  for (const char* op : {"block_sparse_attn", "block_sparse_attn_backward", "decode_attn",
                         "pooled_attn", "lookup_score", "lookup_score_grad", "attn_gate_pool",
                         "attn_gate_project", "attn_gate_score", "gate_loss", "block_select"}) {
    EXPECT_EQ(reason({}, DType::bf16, 128, op, "cpu"), "") << op;
    EXPECT_THAT(reason({.sm = 90}, DType::bf16, 128, op, "cpu"), HasSubstr("GPU")) << op;
  }
}

TEST(KernelList, EveryHeadSizeRunsOnTheCpu) {
  for (const int head_dim : {1, 20, 100, 128, 256}) EXPECT_EQ(why_not_head_dim({}, head_dim), "");
  EXPECT_THAT(why_not_head_dim({}, 264), HasSubstr("cpu: head_dim is 264, want at most 256"));
}

TEST(KernelList, GpusSayWhichHeadSizesTheyTake) {
#ifdef SEER_CUDA
  for (const int head_dim : {64, 96, 128, 256}) {
    EXPECT_EQ(why_not_head_dim({.sm = 90, .num_sms = 132}, head_dim), "") << head_dim;
  }
  for (const int head_dim : {20, 100}) {
    EXPECT_THAT(why_not_head_dim({.sm = 90, .num_sms = 132}, head_dim),
                HasSubstr(message("head_dim is ", head_dim, ", want 64, 96, 128 or 256")));
  }
#else
  EXPECT_THAT(why_not_head_dim({.sm = 90}, 64), HasSubstr("built without CUDA kernels"));
#endif
}

// Models without lookup heads take larger blocks all the same.
TEST(KernelList, BlocksOf128RunOnGpus) {
#ifdef SEER_CUDA
  std::map<std::string, bool> runs;
  for (const KernelStatus& s : kernel_list({.sm = 90, .num_sms = 132}, DType::bf16, 128, 128)) {
    runs[s.op] |= s.why_not.empty();
  }
  for (const auto& [op, does] : runs) EXPECT_TRUE(does) << op;
#endif
}

TEST(KernelList, LookupHeadsAreListedAsTheyAre) {
  const auto why = [](const Device& device, const std::string& op, int block, int rank) {
    std::string reasons;
    for (const KernelStatus& s : kernel_list(device, DType::bf16, 128, block, rank)) {
      if (op != s.op) continue;
      if (s.why_not.empty()) return std::string();
      reasons += s.why_not + "; ";
    }
    return reasons;
  };
  for (const char* op : {"lookup_score", "lookup_score_grad"}) {
    for (const int rank : {16, 32, 64}) {
      for (const int block : {16, 64, 128}) EXPECT_EQ(why({}, op, block, rank), "") << op;
#ifdef SEER_CUDA
      const Device hopper{.sm = 90, .num_sms = 132};
      EXPECT_EQ(why(hopper, op, 64, rank), "") << op;
      EXPECT_THAT(why(hopper, op, 128, rank), HasSubstr("is 128, want 64")) << op;
#endif
    }
  }
}

TEST(KernelList, GpuKernelsSayWhichChipsTheyTake) {
#ifdef SEER_CUDA
  const Device ampere{.sm = 80}, hopper{.sm = 90}, turing{.sm = 75};
  EXPECT_EQ(reason(hopper, DType::bf16, 128, "block_sparse_attn", "sm90"), "");
  EXPECT_EQ(reason(ampere, DType::f16, 64, "block_sparse_attn", "sm80"), "");
  for (const char* op :
       {"attn_gate_pool", "attn_gate_project", "attn_gate_score", "gate_loss", "block_select"}) {
    EXPECT_EQ(reason(ampere, DType::f32, 72, op, "sm80"), "") << op;
    EXPECT_EQ(reason(hopper, DType::bf16, 128, op, "sm80"), "") << op;
    EXPECT_THAT(reason(turing, DType::bf16, 128, op, "sm80"), HasSubstr("8.0 or later")) << op;
    EXPECT_THAT(reason({}, DType::bf16, 128, op, "sm80"), HasSubstr("on the CPU")) << op;
  }
  EXPECT_THAT(reason(ampere, DType::bf16, 128, "block_sparse_attn", "sm90"),
              HasSubstr("needs compute capability 9.0, this GPU has 8.0"));
  EXPECT_THAT(reason(turing, DType::bf16, 128, "block_sparse_attn", "sm80"),
              HasSubstr("8.0 or later, this GPU has 7.5"));
  EXPECT_THAT(reason({}, DType::bf16, 128, "block_sparse_attn", "sm90"), HasSubstr("on the CPU"));
  EXPECT_THAT(reason(hopper, DType::bf16, 72, "block_sparse_attn", "sm90"),
              HasSubstr("head_dim is 72, want 64, 96, 128 or 256"));
  EXPECT_THAT(reason(hopper, DType::f32, 128, "block_sparse_attn", "sm90"),
              HasSubstr("dtype is f32"));
  EXPECT_EQ(reason(hopper, DType::bf16, 128, "pooled_attn", "sm90"), "");
  EXPECT_EQ(reason(hopper, DType::bf16, 128, "lookup_score", "sm90"), "");
  EXPECT_EQ(reason(ampere, DType::bf16, 128, "lookup_score", "sm80"), "");
  EXPECT_EQ(reason(hopper, DType::bf16, 128, "lookup_score_grad", "sm80"), "");
  for (const char* op : {"attn_gate_project", "attn_gate_score"}) {
    EXPECT_EQ(reason(hopper, DType::bf16, 128, op, "sm90"), "") << op;
    EXPECT_THAT(reason(ampere, DType::bf16, 128, op, "sm90"), HasSubstr("9.0")) << op;
  }
  EXPECT_THAT(reason(hopper, DType::bf16, 96, "attn_gate_project", "sm90"), HasSubstr("want"));
  EXPECT_THAT(reason(hopper, DType::bf16, 66, "attn_gate_score", "sm90"), HasSubstr("want"));
  EXPECT_EQ(reason(ampere, DType::bf16, 256, "pooled_attn", "sm80"), "");
  EXPECT_THAT(reason(hopper, DType::bf16, 96, "pooled_attn", "sm90"),
              HasSubstr("head_dim is 96, want 64 or 128"));
#else
  EXPECT_THAT(reason({.sm = 90}, DType::bf16, 128, "block_sparse_attn", "sm90"),
              HasSubstr("built without CUDA kernels"));
#endif
}

TEST(KernelList, SlowerKernelsSaySo) {
#ifdef SEER_CUDA
  const auto slower = [](const Device& device, int head_dim) {
    for (const KernelStatus& s : kernel_list(device, DType::bf16, head_dim, 64)) {
      if (s.op == std::string("pooled_attn") && s.implementation == std::string("sm80")) {
        return s.slower;
      }
    }
    return std::string("not in the list");
  };
  EXPECT_THAT(slower({.sm = 90}, 96),
              HasSubstr("a third of the speed (sm90: head_dim is 96, want 64 or 128)"));
  EXPECT_EQ(slower({.sm = 90}, 128), "");  // sm90's kernel takes it
  EXPECT_EQ(slower({.sm = 80}, 96), "");   // no other kernel is for this chip
#endif
  testing::internal::CaptureStderr();
  for (int call = 0; call < 2; ++call) warn_slower("an_op", "sm80", "slower (sm90: a reason)");
  EXPECT_EQ(testing::internal::GetCapturedStderr(),
            "seer: warning: an_op runs on its sm80 kernel, slower (sm90: a reason)\n");
}

}  // namespace
}  // namespace seer::kernels
