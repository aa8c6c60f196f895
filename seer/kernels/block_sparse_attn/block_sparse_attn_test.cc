// Every engine against the reference in double, on named odd cases; determinism; errors.

#include "seer/kernels/block_sparse_attn/block_sparse_attn.h"

#include <gtest/gtest.h>

#include <functional>

#include "seer/kernels/attention/testing/attention_engines.h"
#include "seer/kernels/attention/testing/call_checks.h"
#include "seer/kernels/block_sparse_attn/cpu.h"
#include "seer/kernels/block_sparse_attn/testing/block_sparse_attn_cases.h"

namespace seer::kernels {
namespace {

using Case = BlockSparseAttnCase;
using Call = BlockSparseAttnCall;
using Reference = BlockSparseAttnReference;

Limits engine_limits(DType dtype, const TileEngine& engine) {
  return engine.element_bytes == 2 ? o_limits_of_rounded_p(DType::bf16) : o_limits(dtype);
}

void attend(const BlockSparseAttnParams& p) {
  block_sparse_attn(p);
}

class BlockSparseAttnCases : public testing::TestWithParam<Case> {};

TEST_P(BlockSparseAttnCases, EveryEngineMatchesTheReference) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    Call call(GetParam(), dtype);
    const Reference reference(call);
    for_each_engine(dtype, [&](const TileEngine& engine) {
      call.o =
          AttentionTensor(dtype, call.q.tokens, call.q.heads, call.q.head_dim, call.shape.padding);
      call.lse.assign(call.lse.size(), NAN);
      block_sparse_attn_cpu(call.params(), engine);
      EXPECT_EQ(reference.compare(call, engine_limits(dtype, engine)), "")
          << name(dtype) << " " << engine.name;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(All, BlockSparseAttnCases, testing::ValuesIn(kBlockSparseAttnCases),
                         [](const auto& info) { return std::string(info.param.name); });

// One call on each engine that takes the dtype, after `change`.
void on_every_engine(const Case& shape, const std::function<void(Call&)>& change,
                     const std::function<void(Call&, const TileEngine&)>& then) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    for_each_engine(dtype, [&](const TileEngine& engine) {
      SCOPED_TRACE(message(name(dtype), " ", engine.name));
      Call call(shape, dtype);
      change(call);
      block_sparse_attn_cpu(call.params(), engine);
      then(call, engine);
    });
  }
}

TEST(BlockSparseAttn, NanInUnlistedBlockDoesNotLeak) {
  const Case shape = {.name = "", .q_lens = {256}, .k_lens = {256}, .density = 1};
  const auto change = [](Call& call) {
    unlist_block(call, 1);
    poison(call.k, 64, 128);
    poison(call.v, 64, 128);
  };
  on_every_engine(shape, change, [](Call& call, const TileEngine&) {
    for (int64_t t = 0; t < 256; ++t) {
      for (int d = 0; d < 64; ++d) ASSERT_TRUE(std::isfinite(call.o.at(t, 1, d))) << t;
    }
  });
}

TEST(BlockSparseAttn, NanInAKeyShowsInTheRowsThatSeeIt) {
  const Case shape = {.name = "", .q_lens = {64}, .k_lens = {64}, .density = 1, .causal = false};
  const auto change = [](Call& call) { poison(call.k, 40, 41); };
  on_every_engine(shape, change, [](Call& call, const TileEngine&) {
    for (int64_t t = 0; t < 64; ++t) {
      EXPECT_TRUE(std::isnan(call.o.at(t, 0, 5))) << t;
      EXPECT_TRUE(std::isnan(call.lse[t])) << t;
    }
  });
}

TEST(BlockSparseAttn, LargeScores) {
  const Case shape = {.name = "", .q_lens = {256}, .k_lens = {256}, .density = 1};
  on_every_engine(
      shape, [](Call& call) { grow_keys(call.k); },
      [](Call& call, const TileEngine& engine) {
        const Limits limits = engine_limits(call.q.dtype, engine);
        EXPECT_EQ(
            Reference(call).compare(call, limits.absolute < 1e-5 ? Limits{5e-5, 2e-5, 1e-9}
                                                                 : Limits{1e-2, 5e-3, 1.5e-5}),
            "");
      });
}

TEST(BlockSparseAttn, SameBitsInEveryRunAndForEveryThreadCount) {
  const Case shape = {.name = "",
                      .q_lens = {333, 40, 129},
                      .k_lens = {400, 40, 129},
                      .heads_q = 6,
                      .heads_kv = 3,
                      .block_q = 32};
  same_bits_for_every_thread_count<Call>(shape, attend);
}

void expect_error(const std::function<void(BlockSparseAttnCall&, BlockSparseAttnParams&)>& spoil,
                  const char* text) {
  kernels::expect_error(
      BlockSparseAttnCall({.name = "", .q_lens = {100}, .k_lens = {100}, .density = 1}, DType::f32),
      attend, spoil, {text});
}

TEST(BlockSparseAttn, ErrorsSayWhatIsWrong) {
  using P = BlockSparseAttnParams;
  expect_error([](Call&, P& p) { p.num_kv_heads = 3; }, "2 query heads do not share 3");
  expect_error([](Call&, P& p) { p.lists.num_heads = 5; }, "5 list heads, want 2");
  expect_error([](Call&, P& p) { p.head_dim = 264; }, "cpu: head_dim is 264, want at most 256");
  expect_error([](Call&, P& p) { p.lists.block_k = 24; }, "want a multiple of 16");
  expect_error([](Call&, P& p) { p.scale = 0; }, "scale is 0");
  expect_error([](Call& c, P&) { c.list[2] = 2; }, "row 1 of sequence 0 lists key block 2");
  expect_error([](Call& c, P&) { std::swap(c.list[1], c.list[2]); }, "lists key block 0 after 1");
  expect_error([](Call& c, P&) { c.cu_q[1] = 99; }, "cu_q goes from 0 to 99, want 0 to 100");
  expect_error([](Call& c, P& p) { p.lists.num_rows = c.cu_rows[1] = 1; }, "has 1 rows, want 2");
}

}  // namespace
}  // namespace seer::kernels
