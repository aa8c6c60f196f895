// Every GPU kernel against the reference in double, on the cases of the CPU's test; what must not
// leak; determinism, streams, graphs, large tensors, small workspaces; errors.

#include <gtest/gtest.h>

#include "seer/kernels/attention/testing/gpu_calls.h"
#include "seer/kernels/pooled_attn/pooled_attn.h"
#include "seer/kernels/pooled_attn/testing/pooled_attn_cases.h"

namespace seer::kernels {
namespace {

using Case = PooledAttnCase;
using Call = PooledAttnCall;
using Reference = PooledAttnReference;

class DeviceCall : public AttentionDeviceCall<Call> {
 public:
  // As given, enough for any kernel.
  explicit DeviceCall(Call& call, int64_t workspace_bytes = int64_t{64} << 20)
      : AttentionDeviceCall(call), cu_rows_(call.cu_rows), workspace_(workspace_bytes) {
    params_.map = map_.as<float>();
    params_.cu_rows = cu_rows_.as<int32_t>();
    params_.workspace = workspace_.as<void>();
    params_.workspace_bytes = workspace_bytes;
    if (call.shape.map_alone) params_.v = {}, params_.o = {};
  }

 private:
  DeviceBuffer cu_rows_, workspace_;
};

struct PooledAttnOp {
  using Case = PooledAttnCase;
  using Call = PooledAttnCall;
  using Params = PooledAttnParams;
  using Reference = PooledAttnReference;
  using DeviceCall = kernels::DeviceCall;
  static auto impls() { return pooled_attn_impls(); }
  static void attend(const Params& p, const Device& device) { pooled_attn(p, device); }
};

using Gpu = AttentionGpu<PooledAttnOp>;
using Kernel = Gpu::Kernel;
class PooledAttnGpu : public Gpu {};
class PooledAttnGpuCases : public OnGpu<testing::TestWithParam<Case>> {};

TEST_P(PooledAttnGpuCases, EveryKernelMatchesTheReference) {
  const Case& c = GetParam();
  const bool should_be_taken =
      (c.block_q == 1 || c.block_q % 64 == 0) && c.block_k % 64 == 0 &&
      (c.head_dim == 64 || c.head_dim == 96 || c.head_dim == 128 || c.head_dim == 256);
  for (const Case& shape : with_and_without_o(c)) {
    SCOPED_TRACE(shape.map_alone ? "map alone" : "");
    for (const DType dtype : kGpuDTypes) {
      Call call(shape, dtype);
      const Reference reference(call);
      const int taken = Gpu::visit(call.params(), [&](const Kernel& kernel) {
        Gpu::run(kernel, call);
        EXPECT_EQ(reference.compare(call, o_limits_of_rounded_p(dtype)), "");
      });
      EXPECT_EQ(taken > 0, should_be_taken);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, PooledAttnGpuCases, testing::ValuesIn(kPooledAttnCases),
                         [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(ManyBlocks, PooledAttnGpuCases, testing::ValuesIn(kPooledAttnLongCases),
                         [](const auto& info) { return std::string(info.param.name); });

// Of lookup heads' scores.
const Limits& limits_of(const Kernel& kernel, DType dtype) {
  const bool sums_in_f16 = dtype == DType::f16 && kernel.name == std::string("sm90");
  return sums_in_f16 ? kF16ScoreLimits : kMapLimits;
}

class BlockSoftmaxGpuCases : public OnGpu<testing::TestWithParam<Case>> {};

TEST_P(BlockSoftmaxGpuCases, EveryKernelMatchesTheReference) {
  const Case& shape = GetParam();
  const bool should_be_taken = shape.head_dim != 16 && shape.block_q == 64 && shape.block_k == 64;
  for (const DType dtype : kGpuDTypes) {
    Call call(shape, dtype);
    const Reference reference(call);
    const int taken = Gpu::visit(call.params(), [&](const Kernel& kernel) {
      Gpu::run(kernel, call);
      EXPECT_EQ(reference.compare(call, {0, 0, 0}, limits_of(kernel, dtype)), "");
    });
    EXPECT_EQ(taken > 0, should_be_taken);
  }
}

INSTANTIATE_TEST_SUITE_P(All, BlockSoftmaxGpuCases, testing::ValuesIn(kBlockSoftmaxCases),
                         [](const auto& info) { return std::string(info.param.name); });

Case lookup_case(std::vector<int> q_lens, std::vector<int> k_lens, int heads, int rank) {
  return {.name = "",
          .q_lens = std::move(q_lens),
          .k_lens = std::move(k_lens),
          .heads_q = heads,
          .heads_kv = heads,
          .head_dim = rank,
          .map_alone = true,
          .block_softmax = true};
}

// Of few tiles and of many, for which the sm90 kernel has one form each.
std::vector<Case> lookup_cases() {
  return {lookup_case({733, 40, 529}, {900, 40, 529}, 3, 32),
          lookup_case({733, 40, 529}, {900, 40, 529}, 3, 64),
          lookup_case({1500, 64, 700}, {1500, 64, 999}, 21, 32),
          lookup_case({1500, 64, 700}, {1500, 64, 999}, 21, 64)};
}

// --- what must not leak ---

TEST_F(PooledAttnGpu, NanOfANeighbourDoesNotLeak) {
  for (const int head_dim : {64, 96, 128, 256}) {
    for (const bool causal : {true, false}) {
      const Case shape = {.name = "",
                          .q_lens = {70, 40, 175},
                          .k_lens = {70, 100, 175},
                          .head_dim = head_dim,
                          .normalise = true,
                          .causal = causal};
      const auto change = [](Call& call) {
        poison(call.q, 70, 110);
        poison(call.k, 70, 170);
        poison(call.v, 70, 170);
      };
      const auto check = [&](const Call& call) {
        for (int64_t t = 0; t < 285; ++t) {
          const bool is_neighbour = t >= 70 && t < 110;
          ASSERT_EQ(std::isnan(call.lse[285 + t]), is_neighbour) << t;
          for (int d = 0; d < head_dim && !call.shape.map_alone; ++d) {
            ASSERT_EQ(std::isnan(call.o.at(t, 1, d)), is_neighbour) << t << " " << d;
          }
        }
        for (const int64_t row : {0, 1, 3, 4, 5}) {  // 2 is the neighbour's
          for (int64_t j = 0; j < call.num_blocks; ++j) {
            ASSERT_TRUE(std::isfinite(call.map[row * call.num_blocks + j])) << row << " " << j;
          }
        }
      };
      for (const Case& c : with_and_without_o(shape)) on_every_kernel(c, change, check);
    }
  }
}

TEST_F(PooledAttnGpu, NanOfANeighbourDoesNotReachLookupScores) {
  for (const int rank : {32, 64}) {
    for (const bool causal : {true, false}) {
      const auto change = [](Call& call) {
        poison(call.q, 70, 110);
        poison(call.k, 70, 170);
      };
      const auto check = [](const Call& call) {
        for (int64_t t = 0; t < 385; ++t) {
          ASSERT_EQ(std::isnan(call.lse[385 + t]), t >= 70 && t < 110) << t;
        }
        for (const int64_t row : {0, 1, 3, 4, 5, 6, 7}) {  // 2 is the neighbour's
          for (int64_t j = 0; j < call.num_blocks; ++j) {
            ASSERT_TRUE(std::isfinite(call.map[row * call.num_blocks + j])) << row << " " << j;
          }
        }
      };
      Case shape = lookup_case({70, 40, 275}, {70, 100, 275}, 2, rank);
      shape.causal = causal;
      on_every_kernel(shape, change, check);
    }
  }
}

TEST_F(PooledAttnGpu, NothingIsWrittenBetweenRows) {
  nothing_is_written_between_rows({.name = "", .q_lens = {130}, .k_lens = {190}, .padding = 24});
}

TEST_F(PooledAttnGpu, LargeScores) {
  for (const int head_dim : {64, 128}) {
    const Case shape = {.name = "", .q_lens = {448}, .k_lens = {448}, .head_dim = head_dim};
    const auto check = [](const Call& call) {
      const Reference reference(call);
      EXPECT_EQ(far_from(call, reference.wide, o_limits_of_rounded_p(call.q.dtype)), "");
      // Scores of some hundreds: an f32 holds them to 1e-5, and weights are as exact.
      EXPECT_EQ(far_from(call.map, reference.wide.map, {2e-4, 1e-4, 1e-8}), "");
    };
    for (const Case& c : with_and_without_o(shape)) {
      on_every_kernel(c, [](Call& call) { grow_keys(call.k); }, check);
    }
  }
}

// --- how it is run ---

const Case kLongCase = {.name = "",
                        .q_lens = {733, 40, 529},
                        .k_lens = {900, 40, 529},
                        .heads_q = 6,
                        .heads_kv = 3,
                        .head_dim = 128,
                        .normalise = true};

TEST_F(PooledAttnGpu, SameBitsInEveryRun) {
  for (const bool group_max : {false, true}) {
    Case shape = kLongCase;
    shape.group_max = group_max;
    for (const Case& c : with_and_without_o(shape)) same_bits_in_every_run(c);
  }
  for (const Case& c : lookup_cases()) same_bits_in_every_run(c);
}

TEST_F(PooledAttnGpu, LookupScoresAreTheSameBitsInSmallWorkspaces) {
  for (Case shape : lookup_cases()) {
    for (const int nan_query : {-1, 300}) {
      shape.nan_query = nan_query;
      for (const DType dtype : kGpuDTypes) {
        Call call(shape, dtype), small(shape, dtype);
        each_kernel(call.params(), [&](const Kernel& kernel) {
          run(kernel, call);
          for (const int64_t bytes : {2048 + 256, 8192 + 256, 40000}) {
            if (bytes < 8192 && kernel.name == std::string("sm80")) continue;  // keeps all maxima
            const DeviceCall on_device(small, bytes);
            kernel.run(on_device.params(), nullptr);
            on_device.download(small);
            EXPECT_TRUE(same_bits(call, small)) << shape.head_dim << " " << bytes;
          }
          const DeviceCall none(small, 1000);
          EXPECT_THROW(kernel.run(none.params(), nullptr), Error);
        });
      }
    }
  }
}

// With little workspace a kernel takes one tile after another, or computes scores twice.
TEST_F(PooledAttnGpu, SmallWorkspaceGivesTheSameBits) {
  const auto with = [](int head_dim, int block_q, int block_k, bool group_max, bool causal) {
    Case shape = kLongCase;
    shape.head_dim = head_dim, shape.block_q = block_q, shape.block_k = block_k;
    shape.group_max = group_max, shape.causal = causal;
    return shape;
  };
  Case with_nan = kLongCase;
  with_nan.nan_query = 200;
  for (const Case& c :
       {kLongCase, with_nan, with(64, 64, 64, true, true), with(128, 128, 64, false, false),
        with(64, 64, 128, false, false), with(128, 128, 128, true, true)}) {
    for (const Case& shape : with_and_without_o(c)) {
      for (const DType dtype : kGpuDTypes) {
        Call call(shape, dtype), small(shape, dtype);
        each_kernel(call.params(), [&](const Kernel& kernel) {
          run(kernel, call);
          const DeviceCall on_device(small, 4096 + 256);
          kernel.run(on_device.params(), nullptr);
          on_device.download(small);
          EXPECT_TRUE(same_bits(call, small)) << shape.head_dim << " " << shape.block_k;
          const DeviceCall none(small, 1000);
          EXPECT_THROW(kernel.run(none.params(), nullptr), Error);
        });
      }
    }
  }
}

// More keys than the sm90 kernel keeps maxima of; too many for the reference, so kernels are compared.
TEST_F(PooledAttnGpu, KernelsAgreeOnManyKeys) {
  int num_kernels = 0;
  for (Case shape : with_and_without_o(
           {.name = "", .q_lens = {300}, .k_lens = {92000}, .heads_q = 3, .heads_kv = 1})) {
    if (shape.map_alone) shape.k_lens = {132000};
    Call want(shape, DType::bf16), got(shape, DType::bf16);
    num_kernels = 0;
    each_kernel(want.params(), [&](const Kernel& kernel) {
      run(kernel, num_kernels++ == 0 ? want : got);
      if (num_kernels == 1) return;
      EXPECT_EQ(far_from(got.map.data(), want.map.data(), got.map.size(), kMapLimits), "");
      EXPECT_EQ(far_from(got.lse.data(), want.lse.data(), got.lse.size(), kLseLimits), "");
    });
  }
  if (num_kernels == 1) GTEST_SKIP() << "this GPU has one kernel only";
}

TEST_F(PooledAttnGpu, KernelsAgreeOnLookupScoresOfManyKeys) {
  for (const DType dtype : kGpuDTypes) {
    const int keys = dtype == DType::f16 ? 263000 : 132000;
    Call want(lookup_case({300}, {keys}, 2, 32), dtype), got = want;
    const Kernel* first = nullptr;  // sm90, where the GPU has it
    each_kernel(want.params(), [&](const Kernel& kernel) {
      run(kernel, first == nullptr ? want : got);
      if (first != nullptr) {
        EXPECT_EQ(far_from(got.map, want.map, limits_of(*first, dtype)), "");
        EXPECT_EQ(far_from(got.lse, want.lse, limits_of(*first, dtype)), "");
      }
      first = &kernel;
    });
  }
}

TEST_F(PooledAttnGpu, WorkspaceIsWhatTheFirstKernelWants) {
  for (const Case& shape : lookup_cases()) {
    Call call(shape, DType::bf16);
    const Device device = cuda_device(0);
    const DeviceCall on_device(call, pooled_attn_workspace(call.params(), device));
    pooled_attn(on_device.params(), device);
    on_device.download(call);
    EXPECT_EQ(Reference(call).compare(call, {0, 0, 0}), "");
  }
  for (const Case& shape : with_and_without_o(kLongCase)) {
    Call call(shape, DType::bf16);
    const Device device = cuda_device(0);
    const int64_t bytes = pooled_attn_workspace(call.params(), device);
    EXPECT_GT(bytes, 0);
    const DeviceCall on_device(call, bytes);
    pooled_attn(on_device.params(), device);
    on_device.download(call);
    EXPECT_EQ(Reference(call).compare(call, o_limits_of_rounded_p(DType::bf16)), "");
  }
}

// Both ways of a kernel agree, tile for tile and for many rows.
TEST_F(PooledAttnGpu, TheMapAloneIsThatOfTheWholeCall) {
  for (const int head_dim : {64, 128}) {
    for (const bool group_max : {false, true}) {
      const Case shape = {.name = "",
                          .q_lens = {1000, 1, 257, 2500},
                          .k_lens = {1000, 700, 600, 2500},
                          .heads_q = 8,
                          .heads_kv = 2,
                          .head_dim = head_dim,
                          .group_max = group_max,
                          .normalise = true};
      const auto both = with_and_without_o(shape);
      Call whole(both[0], DType::bf16), alone(both[1], DType::bf16);
      each_kernel(whole.params(), [&](const Kernel& kernel) {
        run(kernel, whole);
        run(kernel, alone);
        EXPECT_EQ(far_from(alone.map, whole.map, kMapLimits), "");
        EXPECT_EQ(far_from(alone.lse, whole.lse, kLseLimits), "");
      });
    }
  }
}

TEST_F(PooledAttnGpu, TwoStreamsAtOnce) {
  for (const Case& shape : with_and_without_o(kLongCase)) two_streams_at_once(shape);
  for (const Case& shape : lookup_cases()) two_streams_at_once(shape);
}

TEST_F(PooledAttnGpu, GraphIsCapturedAndReplayed) {
  for (const Case& shape : with_and_without_o(kLongCase)) graph_is_captured_and_replayed(shape);
  for (const Case& shape : lookup_cases()) graph_is_captured_and_replayed(shape);
}

TEST_F(PooledAttnGpu, MoreThan2To31Elements) {
  more_than_2_to_31_elements({.name = "", .q_lens = {600}, .k_lens = {600}, .heads_kv = 2});
}

TEST(PooledAttnGpuErrors, ListEveryKernelsReason) {
  Gpu::list_every_kernels_reason({.name = "", .q_lens = {100}, .k_lens = {100}},
                                 "sm80: block_q is 16, want 1, 64 or 128");
}

TEST(PooledAttnGpuErrors, MisalignedTensors) {
  Gpu::misaligned_tensors({.name = "", .q_lens = {100}, .k_lens = {100}});
}

}  // namespace
}  // namespace seer::kernels
