#include "seer/cli/methods.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "seer/kernels/kernel_list.h"

namespace seer::cli {
namespace {

using testing::HasSubstr;

constexpr kernels::Device kHopper{.sm = 90, .num_sms = 132};

// Of this build.
bool has_gpu_kernels() {
  return kernels::why_not_head_dim(kHopper, 64).empty();
}

TEST(Methods, NeedsKnowLookupHeads) {
  const Needs bare, heads{.lookup_rank = 32}, trained{.trains = true, .lookup_rank = 32};
  for (const Needs& needs : {bare, heads, trained}) {
    EXPECT_EQ(why_no_kernel({}, DType::f32, 64, needs, 128), "");
  }
  EXPECT_EQ(why_no_kernel(kHopper, DType::bf16, 64, bare, 128), "");
  EXPECT_THAT(why_no_kernel(kHopper, DType::bf16, 64, heads, 128),
              HasSubstr("no kernel of lookup_score takes this (sm90: "));
  if (!has_gpu_kernels()) return;
  for (const Needs& needs : {heads, trained}) {
    EXPECT_EQ(why_no_kernel(kHopper, DType::bf16, 64, needs, 64), "");
    EXPECT_THAT(why_no_kernel(kHopper, DType::bf16, 64, needs, 128), HasSubstr("is 128, want 64"));
  }
}

TEST(Methods, NeedsKnowGradients) {
  // The reference has no limit, the CPU none of its own: what no kernel takes are GPUs of a build without any.
  if (has_gpu_kernels()) {
    EXPECT_EQ(why_no_kernel(kHopper, DType::bf16, 64,
                            {.gates = true, .sparse = true, .map = true, .trains = true}, 64),
              "");
    return;
  }
  EXPECT_THAT(why_no_kernel(kHopper, DType::bf16, 64, {.gates = true, .trains = true}, 64),
              HasSubstr("no kernel of attn_gate_pool"));
  EXPECT_THAT(why_no_kernel(kHopper, DType::bf16, 64, {.trains = true, .lookup_rank = 16}, 64),
              HasSubstr("no kernel of lookup_score takes"));
}

}  // namespace
}  // namespace seer::cli
