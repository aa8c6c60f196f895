// Every GPU kernel against the reference in double, on the cases of the CPU's test; what must not
// leak; determinism, streams, graphs, large tensors, small workspaces; errors.

#include <gtest/gtest.h>

#include <cstring>
#include <functional>

#include "seer/kernels/gpu_run.h"
#include "seer/kernels/pooled_attn/pooled_attn.h"
#include "seer/kernels/pooled_attn/pooled_attn_cases.h"
#include "seer/kernels/pooled_attn/pooled_attn_device_call.h"

namespace seer::kernels {
namespace {

using Case = PooledAttnCase;
using Call = PooledAttnCall;
using DeviceCall = PooledAttnDeviceCall;
using Kernel = Impl<PooledAttnParams>;
using Params = PooledAttnParams;
using Reference = PooledAttnReference;

constexpr DType kDTypes[] = {DType::bf16, DType::f16};

class PooledAttnGpu : public OnGpu<> {};
class PooledAttnGpuCases : public OnGpu<testing::TestWithParam<Case>> {};

int visit_kernels(const Params& p, const std::function<void(const Kernel&)>& visit) {
  SCOPED_TRACE(name(p.dtype));
  return visit_kernels(pooled_attn_impls(), p, visit);
}
void for_each_kernel(const Params& p, const std::function<void(const Kernel&)>& visit) {
  SCOPED_TRACE(name(p.dtype));
  for_each_kernel(pooled_attn_impls(), p, visit);
}

// Enough for any kernel.
DeviceCall on_gpu(Call& call) {
  return {call, int64_t{64} << 20};
}

// Tensors of its own for every run: no kernel finds another's results.
void run(const Kernel& kernel, Call& call) {
  const DeviceCall on_device = on_gpu(call);
  kernel.run(on_device.params(), nullptr);
  on_device.download(call);
}

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
  const auto same = [](const auto& x, const auto& y) {
    return x.size() == y.size() && std::memcmp(x.data(), y.data(), x.size() * sizeof(x[0])) == 0;
  };
  return same(a.o.bytes, b.o.bytes) && same(a.lse, b.lse) && same(a.map, b.map);
}

TEST_P(PooledAttnGpuCases, EveryKernelMatchesTheReference) {
  const Case& c = GetParam();
  const bool should_be_taken =
      (c.block_q == 1 || c.block_q % 64 == 0) && c.block_k % 64 == 0 &&
      (c.head_dim == 64 || c.head_dim == 96 || c.head_dim == 128 || c.head_dim == 256);
  for (const DType dtype : kDTypes) {
    Call call(c, dtype);
    const Reference reference(call);
    const int taken = visit_kernels(call.params(), [&](const Kernel& kernel) {
      run(kernel, call);
      EXPECT_EQ(reference.compare(call, o_limits_of_rounded_p(dtype)), "");
    });
    EXPECT_EQ(taken > 0, should_be_taken);
  }
}

INSTANTIATE_TEST_SUITE_P(All, PooledAttnGpuCases, testing::ValuesIn(kPooledAttnCases),
                         [](const auto& info) { return std::string(info.param.name); });

INSTANTIATE_TEST_SUITE_P(ManyBlocks, PooledAttnGpuCases, testing::ValuesIn(kPooledAttnLongCases),
                         [](const auto& info) { return std::string(info.param.name); });

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
      on_every_kernel(shape, change, [&](const Call& call) {
        for (int64_t t = 0; t < 285; ++t) {
          const bool is_neighbour = t >= 70 && t < 110;
          for (int d = 0; d < head_dim; ++d) {
            ASSERT_EQ(std::isnan(call.o.at(t, 1, d)), is_neighbour) << t << " " << d;
          }
        }
        for (const int64_t row : {0, 1, 3, 4, 5}) {  // 2 is the neighbour's
          for (int64_t j = 0; j < call.num_blocks; ++j) {
            ASSERT_TRUE(std::isfinite(call.map[row * call.num_blocks + j])) << row << " " << j;
          }
        }
      });
    }
  }
}

TEST_F(PooledAttnGpu, NothingIsWrittenBetweenRows) {
  const Case shape = {.name = "", .q_lens = {130}, .k_lens = {190}, .padding = 24};
  on_every_kernel(
      shape, [](Call&) {},
      [](const Call& call) {
        for (int64_t t = 0; t < call.o.tokens; ++t) {
          for (int d = 64; d < 64 + 24; ++d) ASSERT_TRUE(std::isnan(call.o.at(t, 0, d))) << t;
        }
      });
}

// Scores far beyond what exp() of a float holds, growing and falling from block to block.
TEST_F(PooledAttnGpu, LargeScores) {
  for (const int head_dim : {64, 128}) {
    const Case shape = {.name = "", .q_lens = {448}, .k_lens = {448}, .head_dim = head_dim};
    const auto change = [](Call& call) {
      for (int64_t t = 0; t < call.k.tokens; ++t) {
        for (int d = 0; d < call.k.head_dim; ++d) {
          call.k.set(t, 0, d, call.k.at(t, 0, d) * float(1 + 30 * (t / 64 % 3)));
        }
      }
    };
    on_every_kernel(shape, change, [](const Call& call) {
      const Reference reference(call);
      EXPECT_EQ(far_from(call, reference.wide, o_limits_of_rounded_p(call.q.dtype)), "");
      // Scores of some hundreds: an f32 holds them to 1e-5, and weights are as exact.
      EXPECT_EQ(far_from(call.map, reference.wide.map, {2e-4, 1e-4, 1e-8}), "");
    });
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
    Call first(shape, DType::bf16), again(shape, DType::bf16);
    for_each_kernel(first.params(), [&](const Kernel& kernel) {
      run(kernel, first);
      for (int i = 0; i < 4; ++i) {
        run(kernel, again);
        EXPECT_TRUE(same_bits(first, again)) << i;
      }
    });
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
  for (const Case& shape :
       {kLongCase, with_nan, with(64, 64, 64, true, true), with(128, 128, 64, false, false),
        with(64, 64, 128, false, false), with(128, 128, 128, true, true)}) {
    for (const DType dtype : kDTypes) {
      Call call(shape, dtype), small(shape, dtype);
      for_each_kernel(call.params(), [&](const Kernel& kernel) {
        run(kernel, call);
        const DeviceCall on_device(small, 4096);
        kernel.run(on_device.params(), nullptr);
        on_device.download(small);
        EXPECT_TRUE(same_bits(call, small)) << shape.head_dim << " " << shape.block_k;
        const DeviceCall none(small, 1000);
        EXPECT_THROW(kernel.run(none.params(), nullptr), Error);
      });
    }
  }
}

// More keys than the sm90 kernel keeps maxima of; too many for the reference, so kernels are compared.
TEST_F(PooledAttnGpu, KernelsAgreeOnManyKeys) {
  const Case shape = {.name = "", .q_lens = {200}, .k_lens = {92000}, .heads_q = 3};
  Call want(shape, DType::bf16), got(shape, DType::bf16);
  int num_kernels = 0;
  for_each_kernel(want.params(), [&](const Kernel& kernel) {
    run(kernel, num_kernels++ == 0 ? want : got);
    if (num_kernels == 1) return;
    EXPECT_EQ(far_from(got.map.data(), want.map.data(), got.map.size(), kMapLimits), "");
    EXPECT_EQ(far_from(got.lse.data(), want.lse.data(), got.lse.size(), kLseLimits), "");
  });
  if (num_kernels == 1) GTEST_SKIP() << "this GPU has one kernel only";
}

TEST_F(PooledAttnGpu, WorkspaceIsWhatTheFirstKernelWants) {
  Call call(kLongCase, DType::bf16);
  const Device device = cuda_device(0);
  const int64_t bytes = pooled_attn_workspace(call.params(), device);
  EXPECT_GT(bytes, 0);
  const DeviceCall on_device(call, bytes);
  pooled_attn(on_device.params(), device);
  on_device.download(call);
  EXPECT_EQ(Reference(call).compare(call, o_limits_of_rounded_p(DType::bf16)), "");
}

struct Stream {
  Stream() {
    check_cuda(cudaStreamCreateWithFlags(&handle, cudaStreamNonBlocking), "cudaStreamCreate");
  }
  ~Stream() { cudaStreamDestroy(handle); }
  cudaStream_t handle;
};

TEST_F(PooledAttnGpu, TwoStreamsAtOnce) {
  Call alone[] = {{kLongCase, DType::bf16, 1}, {kLongCase, DType::bf16, 2}};
  for_each_kernel(alone[0].params(), [&](const Kernel& kernel) {
    for (Call& call : alone) run(kernel, call);
    Call together[] = {alone[0], alone[1]};
    const DeviceCall on_device[] = {on_gpu(together[0]), on_gpu(together[1])};
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

TEST_F(PooledAttnGpu, GraphIsCapturedAndReplayed) {
  Call captured(kLongCase, DType::bf16, 1), other(kLongCase, DType::bf16, 2);
  for_each_kernel(captured.params(), [&](const Kernel& kernel) {
    // The other call's queries, on the captured call's keys.
    Call want = captured, got = captured;
    want.q = other.q;
    run(kernel, want);

    DeviceCall on_device = on_gpu(captured);
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
TEST_F(PooledAttnGpu, MoreThan2To31Elements) {
  constexpr int64_t kStride = int64_t{1} << 22;
  const Case shape = {.name = "", .q_lens = {600}, .k_lens = {600}, .heads_kv = 2};
  size_t free = 0, total = 0;
  check_cuda(cudaMemGetInfo(&free, &total), "cudaMemGetInfo");
  const size_t bytes = 600 * kStride * 2;
  if (free < bytes + (size_t{1} << 30)) GTEST_SKIP() << "needs 6 GiB of GPU memory";

  Call call(shape, DType::bf16);
  const Reference reference(call);
  const DeviceBuffer wide(bytes);
  const DeviceCall on_device = on_gpu(call);
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
    pooled_attn(p, Device{.sm = sm, .num_sms = 100});
    FAIL() << "no error; want " << *reasons.begin();
  } catch (const Error& error) {
    for (const char* reason : reasons) {
      EXPECT_NE(std::string(error.what()).find(reason), std::string::npos) << error.what();
    }
  }
}

TEST(PooledAttnGpuErrors, ListEveryKernelsReason) {
  const Case shape = {.name = "", .q_lens = {100}, .k_lens = {100}};
  const auto as_is = [](Params&) {};
  expect_error(shape, DType::f32, 80, as_is,
               {"sm90: needs compute capability 9.0", "sm80: dtype is f32, want bf16 or f16",
                "cpu: the tensors are on a GPU"});
  expect_error(shape, DType::bf16, 75, as_is, {"sm80: needs compute capability 8.0 or later"});
  const auto with = [&](int head_dim, int block_q, int block_k) {
    Case c = shape;
    c.head_dim = head_dim, c.block_q = block_q, c.block_k = block_k;
    return c;
  };
  expect_error(with(72, 64, 64), DType::bf16, 80, as_is,
               {"sm80: head_dim is 72, want 64, 96, 128 or 256"});
  expect_error(with(64, 16, 64), DType::bf16, 80, as_is,
               {"sm80: block_q is 16, want 1, 64 or 128"});
  expect_error(with(64, 64, 16), DType::bf16, 80, as_is, {"sm80: block_k is 16, want 64 or 128"});
}

TEST(PooledAttnGpuErrors, MisalignedTensors) {
  const Case shape = {.name = "", .q_lens = {100}, .k_lens = {100}};
  const auto shift = [](auto& x, int bytes) {
    x.data =
        reinterpret_cast<decltype(x.data)>(reinterpret_cast<uintptr_t>(x.data) / 16 * 16 + bytes);
  };
  const auto expect = [&](const std::function<void(Params&)>& spoil, const char* reason) {
    expect_error(shape, DType::bf16, 80, spoil, {reason});
  };
  expect([&](Params& p) { shift(p.q, 2); }, "sm80: q begins 2 bytes behind a multiple of 16");
  expect([&](Params& p) { p.k.token_stride = 68; },
         "sm80: k has a token stride of 68, want a multiple of 8");
  expect([&](Params& p) { shift(p.o, 2); }, "sm80: o begins 2 bytes behind a multiple of 4");
}

}  // namespace
}  // namespace seer::kernels
