// Every GPU kernel against the reference in double, on the cases of the CPU's test; determinism,
// streams, graphs, large tensors; errors.

#include <gtest/gtest.h>

#include "seer/kernels/block_sparse_attn/testing/block_sparse_attn_gpu.h"

namespace seer::kernels {
namespace {

using Gpu = BlockSparseAttnGpu;
using Case = BlockSparseAttnCase;
using Call = BlockSparseAttnCall;
using Kernel = Gpu::Kernel;
using Reference = BlockSparseAttnReference;

class BlockSparseAttnGpuCases : public OnGpu<testing::TestWithParam<Case>> {};

TEST_P(BlockSparseAttnGpuCases, EveryKernelMatchesTheReference) {
  const Case& c = GetParam();
  const bool should_be_taken =
      c.block_q % 64 == 0 && c.block_k % 64 == 0 &&
      (c.head_dim == 64 || c.head_dim == 96 || c.head_dim == 128 || c.head_dim == 256);
  for (const DType dtype : kGpuDTypes) {
    Call call(c, dtype);
    const Reference reference(call);
    const int taken = Gpu::visit(call.params(), [&](const Kernel& kernel) {
      for (const int num_parts : {1, 3}) {
        Gpu::run_in_parts(kernel, call, num_parts);
        EXPECT_EQ(reference.compare(call, o_limits_of_rounded_p(dtype)), "") << num_parts;
      }
    });
    EXPECT_EQ(taken > 0, should_be_taken);
  }
}

INSTANTIATE_TEST_SUITE_P(All, BlockSparseAttnGpuCases, testing::ValuesIn(kBlockSparseAttnCases),
                         [](const auto& info) { return std::string(info.param.name); });

// --- what must not leak, and what must show ---

TEST_F(BlockSparseAttnGpu, NanInUnlistedBlockDoesNotLeak) {
  const Case shape = {.name = "", .q_lens = {256}, .k_lens = {256}, .density = 1};
  const auto change = [](Call& call) {
    unlist_block(call, 1);
    poison(call.k, 64, 128);
    poison(call.v, 64, 128);
  };
  on_every_kernel(shape, change, [](const Call& call) {
    for (int64_t t = 0; t < 256; ++t) {
      for (int d = 0; d < 64; ++d) ASSERT_TRUE(std::isfinite(call.o.at(t, 1, d))) << t;
    }
  });
}

TEST_F(BlockSparseAttnGpu, NanOfANeighbourDoesNotLeak) {
  for (const int head_dim : {64, 96, 128, 256}) {
    const Case shape = {.name = "",
                        .q_lens = {70, 40, 75},
                        .k_lens = {70, 100, 75},
                        .head_dim = head_dim,
                        .density = 1};
    const auto change = [](Call& call) {
      poison(call.q, 70, 110);
      poison(call.k, 70, 170);
      poison(call.v, 70, 170);
    };
    on_every_kernel(shape, change, [&](const Call& call) {
      for (int64_t t = 0; t < 185; ++t) {
        const bool is_neighbour = t >= 70 && t < 110;
        for (int d = 0; d < head_dim; ++d) {
          ASSERT_EQ(std::isnan(call.o.at(t, 1, d)), is_neighbour) << t << " " << d;
        }
      }
    });
  }
}

TEST_F(BlockSparseAttnGpu, NanInAKeyShowsInTheRowsThatSeeIt) {
  const Case shape = {.name = "", .q_lens = {64}, .k_lens = {64}, .density = 1, .causal = false};
  on_every_kernel(
      shape, [](Call& call) { poison(call.k, 40, 41); },
      [](const Call& call) {
        for (int64_t t = 0; t < 64; ++t) {
          EXPECT_TRUE(std::isnan(call.o.at(t, 0, 5))) << t;
          EXPECT_TRUE(std::isnan(call.lse[t])) << t;
        }
      });
}

// Also where the kernel cuts the list in pieces and puts their results together.
TEST_F(BlockSparseAttnGpu, NanInAQueryShows) {
  const Case shape = {.name = "", .q_lens = {1}, .k_lens = {1000}, .density = 1};
  for (const DType dtype : kGpuDTypes) {
    Call call(shape, dtype);
    poison(call.q, 0, 1);
    each_kernel(call.params(), [&](const Kernel& kernel) {
      for (const int num_parts : {1, 3}) {
        run_in_parts(kernel, call, num_parts);
        EXPECT_TRUE(std::isnan(call.o.at(0, 0, 5))) << num_parts;
        EXPECT_TRUE(std::isnan(call.lse[0])) << num_parts;
      }
    });
  }
}

TEST_F(BlockSparseAttnGpu, NothingIsWrittenBetweenRows) {
  nothing_is_written_between_rows({.name = "", .q_lens = {130}, .k_lens = {190}, .padding = 24});
}

// --- how near ---

TEST_F(BlockSparseAttnGpu, LargeScores) {
  const Case shape = {.name = "", .q_lens = {256}, .k_lens = {256}, .density = 1};
  on_every_kernel(
      shape, [](Call& call) { grow_keys(call.k); },
      [](const Call& call) {
        EXPECT_EQ(Reference(call).compare(call, o_limits_of_rounded_p(call.q.dtype)), "");
      });
}

TEST_F(BlockSparseAttnGpu, LosesNoMoreThanRoundingDoes) {
  const Case shape = {.name = "", .q_lens = {320}, .k_lens = {320}, .head_dim = 128, .density = 1};
  const auto distance = [](const std::vector<float>& x, const std::vector<float>& y) {
    double sum = 0;
    for (size_t i = 0; i < y.size(); ++i) sum += std::pow(double(x[i]) - y[i], 2);
    return std::sqrt(sum);
  };
  on_every_kernel(
      shape, [](Call&) {},
      [&](const Call& call) {
        const Reference reference(call);
        const std::vector<float> want = values_of(reference.wide.o), got = values_of(call.o);
        const std::vector<float> rounded = rounded_dense_attention(call);
        EXPECT_LT(distance(got, want), 1.05 * distance(rounded, want));
      });
}

// --- how it is run ---

const Case kLongCase = {.name = "",
                        .q_lens = {733, 40, 529},
                        .k_lens = {900, 40, 529},
                        .heads_q = 6,
                        .heads_kv = 3,
                        .head_dim = 128};

TEST_F(BlockSparseAttnGpu, SameBitsInEveryRun) {
  same_bits_in_every_run(kLongCase);
}

TEST_F(BlockSparseAttnGpu, TwoStreamsAtOnce) {
  two_streams_at_once(kLongCase);
}

TEST_F(BlockSparseAttnGpu, GraphIsCapturedAndReplayed) {
  graph_is_captured_and_replayed(kLongCase);
}

TEST_F(BlockSparseAttnGpu, MoreThan2To31Elements) {
  more_than_2_to_31_elements({.name = "", .q_lens = {600}, .k_lens = {600}, .heads_kv = 2});
}

TEST(BlockSparseAttnGpuErrors, ListEveryKernelsReason) {
  Gpu::list_every_kernels_reason({.name = "", .q_lens = {100}, .k_lens = {100}},
                                 "sm80: block_q is 16, want 64 or 128");
}

TEST(BlockSparseAttnGpuErrors, MisalignedTensors) {
  Gpu::misaligned_tensors({.name = "", .q_lens = {100}, .k_lens = {100}});
}

}  // namespace
}  // namespace seer::kernels
