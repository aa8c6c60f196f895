// Every GPU kernel against the reference in double, on the cases of the CPU's test; determinism,
// streams, graphs, large tensors; errors.

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "seer/kernels/block_sparse_attn/block_sparse_attn_cases.h"
#include "seer/kernels/block_sparse_attn/block_sparse_attn_gpu_run.h"

namespace seer::kernels {
namespace {

using Case = BlockSparseAttnCase;
using Call = BlockSparseAttnCall;
using DeviceCall = BlockSparseAttnDeviceCall;
using Kernel = BlockSparseAttnKernel;
using Params = BlockSparseAttnParams;
using Reference = BlockSparseAttnReference;

constexpr DType kDTypes[] = {DType::bf16, DType::f16};

class BlockSparseAttnGpuCases : public OnGpu<testing::TestWithParam<Case>> {};

// The call on every kernel, for both element types, after `change` has had its way with it.
void on_every_kernel(const Case& shape, const std::function<void(Call&)>& change,
                     const std::function<void(const Call&)>& then) {
  for (const DType dtype : kDTypes) {
    Call call(shape, dtype);
    change(call);
    for_each_kernel(call.params(), [&](const Kernel& kernel) {
      run(kernel, call);
      then(call);
    });
  }
}

bool same_bits(const Call& a, const Call& b) {
  return std::memcmp(a.o.bytes.data(), b.o.bytes.data(), a.o.bytes.size()) == 0 &&
         std::memcmp(a.lse.data(), b.lse.data(), a.lse.size() * sizeof(float)) == 0;
}

TEST_P(BlockSparseAttnGpuCases, EveryKernelMatchesTheReference) {
  const Case& c = GetParam();
  const bool should_be_taken =
      c.block_q % 64 == 0 && c.block_k % 64 == 0 &&
      (c.head_dim == 64 || c.head_dim == 96 || c.head_dim == 128 || c.head_dim == 256);
  for (const DType dtype : kDTypes) {
    Call call(c, dtype);
    const Reference reference(call);
    const int taken = visit_kernels(call.params(), [&](const Kernel& kernel) {
      for (const int num_parts : {1, 3}) {
        run(kernel, call, num_parts);
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
  for (const DType dtype : kDTypes) {
    Call call(shape, dtype);
    poison(call.q, 0, 1);
    for_each_kernel(call.params(), [&](const Kernel& kernel) {
      for (const int num_parts : {1, 3}) {
        run(kernel, call, num_parts);
        EXPECT_TRUE(std::isnan(call.o.at(0, 0, 5))) << num_parts;
        EXPECT_TRUE(std::isnan(call.lse[0])) << num_parts;
      }
    });
  }
}

TEST_F(BlockSparseAttnGpu, NothingIsWrittenBetweenRows) {
  const Case shape = {.name = "", .q_lens = {130}, .k_lens = {190}, .padding = 24};
  on_every_kernel(
      shape, [](Call&) {},
      [](const Call& call) {
        for (int64_t t = 0; t < call.o.tokens; ++t) {
          for (int d = 64; d < 64 + 24; ++d) ASSERT_TRUE(std::isnan(call.o.at(t, 0, d))) << t;
        }
      });
}

// --- how near ---

TEST_F(BlockSparseAttnGpu, LargeScores) {
  const Case shape = {.name = "", .q_lens = {256}, .k_lens = {256}, .density = 1};
  on_every_kernel(shape, grow_keys, [](const Call& call) {
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
  Call first(kLongCase, DType::bf16), again(kLongCase, DType::bf16);
  for_each_kernel(first.params(), [&](const Kernel& kernel) {
    run(kernel, first);
    for (int i = 0; i < 4; ++i) {
      run(kernel, again);
      EXPECT_TRUE(same_bits(first, again)) << i;
    }
  });
}

struct Stream {
  Stream() {
    check_cuda(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  ~Stream() { cudaStreamDestroy(handle); }
  cudaStream_t handle;
};

TEST_F(BlockSparseAttnGpu, TwoStreamsAtOnce) {
  Call alone[] = {{kLongCase, DType::bf16, 1}, {kLongCase, DType::bf16, 2}};
  for_each_kernel(alone[0].params(), [&](const Kernel& kernel) {
    for (Call& call : alone) run(kernel, call);
    Call together[] = {alone[0], alone[1]};
    const DeviceCall on_device[] = {DeviceCall(together[0]), DeviceCall(together[1])};
    const Stream streams[2];
    check_cuda(cudaDeviceSynchronize(), "copies");  // these streams do not wait for them
    for (int i = 0; i < 4; ++i) {
      for (int s = 0; s < 2; ++s) kernel.run(on_device[s].params(), streams[s].handle);
    }
    for (int s = 0; s < 2; ++s) {
      on_device[s].download(together[s]);
      EXPECT_TRUE(same_bits(alone[s], together[s])) << s;
    }
  });
}

TEST_F(BlockSparseAttnGpu, GraphIsCapturedAndReplayed) {
  Call captured(kLongCase, DType::bf16, 1), other(kLongCase, DType::bf16, 2);
  for_each_kernel(captured.params(), [&](const Kernel& kernel) {
    // The other call's queries, on the captured call's keys and lists.
    Call want = captured, got = captured;
    want.q = other.q;
    run(kernel, want);

    DeviceCall on_device(captured);
    const Stream stream;
    cudaGraph_t graph;
    cudaGraphExec_t replay;
    check_cuda(cudaStreamBeginCapture(stream.handle, cudaStreamCaptureModeThreadLocal), "capture");
    kernel.run(on_device.params(), stream.handle);
    check_cuda(cudaStreamEndCapture(stream.handle, &graph), "end of capture");
    check_cuda(cudaGraphInstantiate(&replay, graph, 0), "cudaGraphInstantiate");
    on_device.q().upload(other.q.bytes);
    check_cuda(cudaDeviceSynchronize(), "copies");
    for (int run = 0; run < 2; ++run) check_cuda(cudaGraphLaunch(replay, stream.handle), "replay");
    on_device.download(got);
    EXPECT_TRUE(same_bits(want, got));
    check_cuda(cudaGraphExecDestroy(replay), "cudaGraphExecDestroy");
    check_cuda(cudaGraphDestroy(graph), "cudaGraphDestroy");
  });
}

// q, k, v and o side by side in rows of 8 MiB: offsets exceed 2^31 elements from token 512 on.
TEST_F(BlockSparseAttnGpu, MoreThan2To31Elements) {
  constexpr int64_t kStride = int64_t{1} << 22;
  const Case shape = {.name = "", .q_lens = {600}, .k_lens = {600}, .heads_kv = 2};
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  const size_t bytes = 600 * kStride * 2;
  if (free < bytes + (size_t{1} << 30)) GTEST_SKIP() << "needs 6 GiB of GPU memory";

  Call call(shape, DType::bf16);
  const Reference reference(call);
  const DeviceBuffer wide(bytes);
  const DeviceCall on_device(call);
  Params p = on_device.params();
  const size_t row = call.q.token_stride * 2;
  const auto place = [&](auto& x, int column) {
    const void* from = x.data;
    x.data = wide.as<char>() + column * row;
    x.token_stride = kStride;
    check_cuda(cudaMemcpy2D(wide.as<char>() + column * row, kStride * 2, from, row, row, 600,
                            cudaMemcpyDeviceToDevice),
               "copy to wide rows");
  };
  place(p.q, 0);
  place(p.k, 1);
  place(p.v, 2);
  for_each_kernel(p, [&](const Kernel& kernel) {
    p.o = on_device.params().o;
    place(p.o, 3);
    kernel.run(p, nullptr);
    on_device.download(call);
    check_cuda(cudaMemcpy2D(call.o.bytes.data(), row, p.o.data, kStride * 2, row, 600,
                            cudaMemcpyDeviceToHost),
               "copy from wide rows");
    EXPECT_EQ(reference.compare(call, o_limits_of_rounded_p(DType::bf16)), "");
  });
}

// --- what it does not take; no GPU needed ---

void expect_error(Case shape, DType dtype, int sm, const std::function<void(Params&)>& spoil,
                  std::initializer_list<const char*> reasons) {
  Call call(shape, dtype);
  Params p = call.params();
  spoil(p);
  try {
    block_sparse_attn(p, Device{.sm = sm, .num_sms = 100});
    FAIL() << "no error; want " << *reasons.begin();
  } catch (const Error& error) {
    for (const char* reason : reasons) {
      EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    }
  }
}

TEST(BlockSparseAttnGpuErrors, ListEveryKernelsReason) {
  const Case shape = {.name = "", .q_lens = {100}, .k_lens = {100}};
  const auto as_is = [](Params&) {};
  expect_error(shape, DType::f32, 80, as_is,
               {"sm90: needs compute capability 9.0", "sm80: dtype is f32, want bf16 or f16",
                "cpu: the tensors are on a GPU"});
  expect_error(shape, DType::f32, 90, as_is, {"(sm90: ", "; sm80: ", "; cpu: "});
  expect_error(shape, DType::bf16, 75, as_is, {"sm80: needs compute capability 8.0 or later"});
  const auto with = [&](int head_dim, int block_q, int block_k) {
    Case c = shape;
    c.head_dim = head_dim, c.block_q = block_q, c.block_k = block_k;
    return c;
  };
  expect_error(with(72, 64, 64), DType::bf16, 80, as_is,
               {"sm80: head_dim is 72, want 64, 96, 128 or 256"});
  expect_error(with(64, 16, 64), DType::bf16, 80, as_is, {"sm80: block_q is 16, want 64 or 128"});
  expect_error(with(64, 64, 16), DType::bf16, 80, as_is, {"sm80: block_k is 16, want 64 or 128"});
}

TEST(BlockSparseAttnGpuErrors, MisalignedTensors) {
  const Case shape = {.name = "", .q_lens = {100}, .k_lens = {100}};
  const auto shift = [](auto& x, int bytes) {
    x.data =
        reinterpret_cast<decltype(x.data)>(reinterpret_cast<uintptr_t>(x.data) / 16 * 16 + bytes);
  };
  const auto expect = [&](const std::function<void(Params&)>& spoil, const char* reason) {
    expect_error(shape, DType::bf16, 80, spoil, {reason});
  };
  expect([&](Params& p) { shift(p.q, 2); }, "sm80: q begins 2 bytes behind a multiple of 16");
  expect([&](Params& p) { shift(p.v, 8); }, "sm80: v begins 8 bytes behind a multiple of 16");
  expect([&](Params& p) { p.k.token_stride = 68; },
         "sm80: k has a token stride of 68, want a multiple of 8");
  expect([&](Params& p) { p.q.head_stride = 65; },
         "sm80: q has a head stride of 65, want a multiple of 8");
  expect([&](Params& p) { shift(p.o, 2); }, "sm80: o begins 2 bytes behind a multiple of 4");
}

}  // namespace
}  // namespace seer::kernels
