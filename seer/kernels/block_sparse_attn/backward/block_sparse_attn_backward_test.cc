// The reference against finite differences of the forward's; the CPU against the reference, on named
// odd cases; what must not leak; determinism; errors.

#include "seer/kernels/block_sparse_attn/backward/block_sparse_attn_backward.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>
#include <omp.h>

#include "seer/kernels/block_sparse_attn/backward/cpu.h"
#include "seer/kernels/block_sparse_attn/backward/testing/backward_call.h"
#include "seer/kernels/block_sparse_attn/testing/block_sparse_attn_cases.h"

namespace seer::kernels {
namespace {

using Case = BlockSparseAttnCase;

// Gradients are f32 sums, rounded once.
Limits limits(DType dtype) {
  if (dtype == DType::bf16) return {1e-2, 3e-3, 6e-6};
  if (dtype == DType::f16) return {2e-3, 4e-4, 2e-7};
  return {3e-5, 2e-6, 1e-11};
}

TEST(BlockSparseAttnBackward, ReferenceIsTheSlopeOfTheForward) {
  const Case shape = {.name = "",
                      .q_lens = {20, 9},
                      .k_lens = {40, 9},
                      .head_dim = 8,
                      .block_q = 16,
                      .block_k = 16,
                      .density = 0.5,
                      .keep_diagonal = false};
  const BackwardCall call = backward_reference(BackwardCall(shape, DType::f32));
  BlockSparseAttnCall forward = call.forward;
  const std::vector<float> grad_o = values_of(call.grad_o);
  // sum(o * grad_o)
  const auto loss = [&] {
    block_sparse_attn_reference(forward.params());
    const std::vector<float> o = values_of(forward.o);
    double sum = 0;
    for (size_t i = 0; i < o.size(); ++i) sum += double(o[i]) * grad_o[i];
    return sum;
  };
  for (const auto& [x, grad] : {std::pair{&forward.q, &call.grad_q},
                                {&forward.k, &call.grad_k},
                                {&forward.v, &call.grad_v}}) {
    for (int64_t t = 0; t < x->tokens; ++t) {
      for (int h = 0; h < x->heads; ++h) {
        for (int d = t % 3; d < x->head_dim; d += 3) {
          constexpr float kStep = 0.01f;
          const float at = x->at(t, h, d);
          x->set(t, h, d, at + kStep);
          const double above = loss();
          x->set(t, h, d, at - kStep);
          const double below = loss();
          x->set(t, h, d, at);
          EXPECT_NEAR((above - below) / (2 * kStep), grad->at(t, h, d), 1e-4)
              << t << " " << h << " " << d;
        }
      }
    }
  }
}

class BlockSparseAttnBackwardCases : public testing::TestWithParam<Case> {};

TEST_P(BlockSparseAttnBackwardCases, EveryInstructionSetMatchesTheReference) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    BackwardCall call(GetParam(), dtype);
    const BackwardCall want = backward_reference(call);
    const int64_t supported = hwy::SupportedTargets();
    for (int64_t targets = supported; targets != 0; targets &= targets - 1) {
      hwy::SetSupportedTargetsForTest(targets & -targets);
      block_sparse_attn_backward_cpu(call.params());
      EXPECT_EQ(call.far_from(want, limits(dtype)), "")
          << name(dtype) << " " << hwy::TargetName(targets & -targets);
    }
    hwy::SetSupportedTargetsForTest(0);  // all that the CPU has, again
  }
}

INSTANTIATE_TEST_SUITE_P(All, BlockSparseAttnBackwardCases,
                         testing::ValuesIn(kBlockSparseAttnCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(BlockSparseAttnBackward, NothingOfUnlistedKeysIsRead) {
  const Case shape = {.name = "", .q_lens = {256}, .k_lens = {256}, .density = 1};
  BlockSparseAttnCall forward(shape, DType::f32);
  unlist_block(forward, 1);
  poison(forward.k, 64, 128);
  poison(forward.v, 64, 128);
  BackwardCall call(forward);
  block_sparse_attn_backward(call.params());
  for (const float x : values_of(call.grad_q)) ASSERT_TRUE(std::isfinite(x));
  for (int64_t t = 0; t < 256; ++t) {
    for (int d = 0; d < 64; ++d) {
      ASSERT_TRUE(std::isfinite(call.grad_k.at(t, 0, d))) << t;
      ASSERT_EQ(t >= 64 && t < 128, call.grad_v.at(t, 0, d) == 0) << t;
    }
  }
}

TEST(BlockSparseAttnBackward, EmptyRowsAndKeysNobodySeesHaveZeroGradients) {
  const Case shape = {.name = "", .q_lens = {200}, .k_lens = {90}, .density = 0.7};
  BackwardCall call(shape, DType::f32);
  block_sparse_attn_backward(call.params());
  for (int64_t t = 0; t < 110; ++t) {
    for (int d = 0; d < 64; ++d) ASSERT_EQ(call.grad_q.at(t, 1, d), 0) << t;
  }
  BackwardCall no_query({.name = "", .q_lens = {0, 0}, .k_lens = {70, 5}}, DType::f32);
  block_sparse_attn_backward(no_query.params());
  for (const float x : values_of(no_query.grad_k)) ASSERT_EQ(x, 0);
  for (const float x : values_of(no_query.grad_v)) ASSERT_EQ(x, 0);
}

TEST(BlockSparseAttnBackward, SameBitsForEveryNumberOfThreads) {
  const int most = omp_get_max_threads();
  BackwardCall call =
      with_a_sink({.name = "", .q_lens = {2500}, .k_lens = {2500}, .heads_q = 4}, DType::bf16);
  block_sparse_attn_backward(call.params());
  for (const int threads : {1, 3}) {
    BackwardCall again(call);
    omp_set_num_threads(threads);
    block_sparse_attn_backward(again.params());
    EXPECT_TRUE(again.has_bits_of(call)) << threads;
  }
  omp_set_num_threads(most);
}

TEST(BlockSparseAttnBackward, WhatTheContractForbids) {
  const auto error = [](void (*change)(BlockSparseAttnBackwardParams&)) -> std::string {
    BackwardCall call({.name = "", .q_lens = {100}, .k_lens = {100}}, DType::f32);
    BlockSparseAttnBackwardParams p = call.params();
    change(p);
    try {
      block_sparse_attn_backward(p);
    } catch (const Error& e) {
      return e.what();
    }
    return "";
  };
  using P = BlockSparseAttnBackwardParams;
  EXPECT_EQ(error([](P& p) { p.num_kv_heads = 3; }),
            "block_sparse_attn_backward: 2 query heads do not share 3 key heads evenly");
  EXPECT_EQ(error([](P& p) { p.scale = 0; }),
            "block_sparse_attn_backward: scale is 0, want a positive number");
  EXPECT_EQ(error([](P& p) { const_cast<int32_t*>(p.lists.list)[0] = 2; }),
            "block_sparse_attn_backward: row 0 of sequence 0 lists key block 2; want ascending "
            "blocks below 2");
  EXPECT_EQ(error([](P& p) { const_cast<int32_t*>(p.cu_q)[1] = 90; }),
            "block_sparse_attn_backward: cu_q goes from 0 to 90, want 0 to 100");
}

}  // namespace
}  // namespace seer::kernels
