// Every GPU kernel against the reference in double, on the cases of the CPU's test; what must not
// leak; determinism; graphs.

#include <gtest/gtest.h>

#include "seer/kernels/block_sparse_attn/backward/block_sparse_attn_backward.h"
#include "seer/kernels/block_sparse_attn/backward/testing/backward_call.h"
#include "seer/kernels/block_sparse_attn/testing/block_sparse_attn_cases.h"
#include "seer/kernels/block_sparse_attn/testing/block_sparse_attn_gpu.h"

namespace seer::kernels {
namespace {

using Case = BlockSparseAttnCase;
using Params = BlockSparseAttnBackwardParams;
using Kernel = Impl<Params>;

// P and dS are rounded before their products.
Limits limits(DType dtype) {
  return dtype == DType::bf16 ? Limits{3e-2, 8e-3, 4e-5} : Limits{5e-3, 1e-3, 1e-6};
}

// Tensors of its own for every run: no kernel finds another's results. NaN lies behind the last query
// and key, and in gradients before a kernel writes them.
class BackwardDeviceCall {
 public:
  explicit BackwardDeviceCall(BackwardCall& call)
      : forward_(call.forward),
        o_(call.forward.o.bytes),
        lse_(call.forward.lse),
        grad_o_(call.grad_o.bytes, 2 * 128 * call.grad_o.token_stride),
        grad_q_(call.grad_q.bytes.size()),
        grad_k_(call.grad_k.bytes.size()),
        grad_v_(call.grad_v.bytes.size()),
        params_(call.params()),
        workspace_(block_sparse_attn_backward_workspace(params_, cuda_device(0))) {
    const BlockSparseAttnParams& f = forward_.params();
    params_.q = f.q, params_.k = f.k, params_.v = f.v;
    params_.cu_q = f.cu_q, params_.cu_k = f.cu_k, params_.lists = f.lists;
    params_.o.data = o_.as<void>();
    params_.lse = lse_.as<float>();
    params_.grad_o.data = grad_o_.as<void>();
    params_.grad_q.data = grad_q_.as<void>();
    params_.grad_k.data = grad_k_.as<void>();
    params_.grad_v.data = grad_v_.as<void>();
    params_.workspace = workspace_.as<void>();
    params_.workspace_bytes = block_sparse_attn_backward_workspace(params_, cuda_device(0));
  }
  const Params& params() const { return params_; }
  void download(BackwardCall& call) const {
    grad_q_.download(call.grad_q.bytes);
    grad_k_.download(call.grad_k.bytes);
    grad_v_.download(call.grad_v.bytes);
  }

 private:
  BlockSparseAttnDeviceCall forward_;
  DeviceBuffer o_, lse_, grad_o_, grad_q_, grad_k_, grad_v_;
  Params params_;
  DeviceBuffer workspace_;
};

void run(const Kernel& kernel, BackwardCall& call) {
  BackwardDeviceCall on_device(call);
  kernel.run(on_device.params(), nullptr);
  on_device.download(call);
}

class BlockSparseAttnBackwardGpu : public OnGpu<> {};
class BlockSparseAttnBackwardGpuCases : public OnGpu<testing::TestWithParam<Case>> {};

// Also once more: the same bits.
void expect_right(BackwardCall& call) {
  const BackwardCall want = backward_reference(call);
  for_each_kernel(block_sparse_attn_backward_impls(), call.params(), [&](const Kernel& kernel) {
    run(kernel, call);
    EXPECT_EQ(call.far_from(want, limits(call.grad_o.dtype)), "") << name(call.grad_o.dtype);
    BackwardCall again(call);
    run(kernel, again);
    EXPECT_TRUE(again.has_bits_of(call)) << name(call.grad_o.dtype);
  });
}

TEST_P(BlockSparseAttnBackwardGpuCases, EveryKernelMatchesTheReference) {
  const Case& c = GetParam();
  const bool has_kernel =
      c.block_q % 64 == 0 && c.block_k % 64 == 0 &&
      (c.head_dim == 64 || c.head_dim == 96 || c.head_dim == 128 || c.head_dim == 256);
  for (const DType dtype : {DType::bf16, DType::f16}) {
    BackwardCall call(c, dtype);
    if (has_kernel) {
      expect_right(call);
    } else {
      EXPECT_EQ(visit_kernels(block_sparse_attn_backward_impls(), call.params(), [](auto&) {}), 0);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, BlockSparseAttnBackwardGpuCases,
                         testing::ValuesIn(kBlockSparseAttnCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST_F(BlockSparseAttnBackwardGpu, ColumnsOfManyRowsAreSplit) {
  for (const int head_dim : {64, 96, 128, 256}) {
    BackwardCall call = with_a_sink(
        {.name = "", .q_lens = {3000}, .k_lens = {3000}, .heads_q = 4, .head_dim = head_dim},
        DType::bf16);
    expect_right(call);
  }
}

TEST_F(BlockSparseAttnBackwardGpu, NanDoesNotLeak) {
  // Of a block that no row lists, of a neighbouring sequence, of memory behind the ends.
  for (const int head_dim : {64, 96, 128, 256}) {
    BlockSparseAttnCall forward({.name = "",
                                 .q_lens = {200, 40, 75},
                                 .k_lens = {200, 100, 75},
                                 .head_dim = head_dim,
                                 .density = 1},
                                DType::bf16);
    unlist_block(forward, 1);
    poison(forward.k, 64, 128);
    poison(forward.v, 64, 128);
    BackwardCall call(forward);
    for (AttentionTensor* x : {&call.forward.q, &call.forward.o, &call.grad_o})
      poison(*x, 200, 240);
    poison(call.forward.k, 200, 300);
    poison(call.forward.v, 200, 300);
    for_each_kernel(block_sparse_attn_backward_impls(), call.params(), [&](const Kernel& kernel) {
      run(kernel, call);
      for (int64_t t = 0; t < 315; ++t) {
        for (int d = 0; d < head_dim; ++d) {
          if (t < 200 || t >= 240) {
            ASSERT_TRUE(std::isfinite(call.grad_q.at(t, 1, d))) << t << " " << d;
          }
        }
      }
      for (int64_t t = 0; t < 375; ++t) {
        for (int d = 0; d < head_dim; ++d) {
          if (t < 200 || t >= 300) {
            ASSERT_TRUE(std::isfinite(call.grad_k.at(t, 0, d))) << t << " " << d;
            ASSERT_TRUE(std::isfinite(call.grad_v.at(t, 0, d))) << t << " " << d;
          }
        }
      }
    });
  }
}

TEST_F(BlockSparseAttnBackwardGpu, NoQueries) {
  BackwardCall call({.name = "", .q_lens = {0, 0}, .k_lens = {70, 5}}, DType::bf16);
  expect_right(call);
}

TEST_F(BlockSparseAttnBackwardGpu, CanBeCaptured) {
  BackwardCall call({.name = "", .q_lens = {700}, .k_lens = {900}}, DType::bf16);
  for_each_kernel(block_sparse_attn_backward_impls(), call.params(), [&](const Kernel& kernel) {
    run(kernel, call);
    BackwardCall captured(call);
    BackwardDeviceCall on_device(captured);
    run_captured([&](cudaStream_t stream) { kernel.run(on_device.params(), stream); });
    on_device.download(captured);
    EXPECT_TRUE(captured.has_bits_of(call));
  });
}

}  // namespace
}  // namespace seer::kernels
