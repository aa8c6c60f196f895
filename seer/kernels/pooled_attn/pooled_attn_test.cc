// Every engine against the reference in double, on named odd cases; determinism; errors.

#include "seer/kernels/pooled_attn/pooled_attn.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "seer/kernels/attention/testing/attention_engines.h"
#include "seer/kernels/attention/testing/call_checks.h"
#include "seer/kernels/pooled_attn/cpu.h"
#include "seer/kernels/pooled_attn/testing/pooled_attn_cases.h"

namespace seer::kernels {
namespace {

using Case = PooledAttnCase;
using Call = PooledAttnCall;

void attend(const PooledAttnParams& p) {
  pooled_attn(p);
}

class PooledAttnCases : public testing::TestWithParam<Case> {};

TEST_P(PooledAttnCases, EveryEngineMatchesTheReference) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    Call call(GetParam(), dtype), alone = call;
    alone.shape.map_alone = true;
    const PooledAttnReference reference(call), reference_alone(alone);
    EXPECT_EQ(far_from(reference_alone.wide.map, reference.wide.map, {0, 0, 0}), "");
    EXPECT_EQ(far_from(reference_alone.wide.lse, reference.wide.lse, {0, 0, 0}), "");
    for_each_engine(dtype, [&](const TileEngine& engine) {
      call.o =
          AttentionTensor(dtype, call.q.tokens, call.q.heads, call.q.head_dim, call.shape.padding);
      call.lse.assign(call.lse.size(), NAN);
      call.map.assign(call.map.size(), NAN);
      pooled_attn_cpu(call.params(), engine);
      const bool is_rounded = engine.element_bytes == 2;  // bf16 dot products
      EXPECT_EQ(
          reference.compare(call, is_rounded ? o_limits_of_rounded_p(dtype) : o_limits(dtype)), "")
          << name(dtype) << " " << engine.name;

      alone.lse.assign(alone.lse.size(), 7);
      alone.map.assign(alone.map.size(), 7);
      pooled_attn_cpu(alone.params(), engine);
      EXPECT_EQ(std::memcmp(alone.lse.data(), call.lse.data(), call.lse.size() * sizeof(float)), 0);
      EXPECT_EQ(std::memcmp(alone.map.data(), call.map.data(), call.map.size() * sizeof(float)), 0);
    });
  }
}

INSTANTIATE_TEST_SUITE_P(All, PooledAttnCases, testing::ValuesIn(kPooledAttnCases),
                         [](const auto& info) { return std::string(info.param.name); });

class BlockSoftmaxCases : public testing::TestWithParam<Case> {};

TEST_P(BlockSoftmaxCases, EveryEngineMatchesTheReference) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    Call call(GetParam(), dtype);
    const PooledAttnReference reference(call);
    for_each_engine(dtype, [&](const TileEngine& engine) {
      call.lse.assign(call.lse.size(), 7);
      call.map.assign(call.map.size(), 7);
      pooled_attn_cpu(call.params(), engine);
      EXPECT_EQ(reference.compare(call, {0, 0, 0}), "") << name(dtype) << " " << engine.name;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(All, BlockSoftmaxCases, testing::ValuesIn(kBlockSoftmaxCases),
                         [](const auto& info) { return std::string(info.param.name); });

// Weights too small for a float: at least 2^-125 where something of a block is seen, and 0 elsewhere.
TEST(PooledAttn, BlockWeightsHaveALogarithm) {
  Call call({.name = "",
             .q_lens = {300},
             .k_lens = {300},
             .heads_q = 1,
             .map_alone = true,
             .block_softmax = true},
            DType::f32);
  for (int64_t t = 0; t < 300; ++t) {
    for (int d = 0; d < 64; ++d) {  // scores of -160 in the first block, 0 elsewhere
      call.q.set(t, 0, d, 1);
      call.k.set(t, 0, d, t < 64 ? -20.f : 0.f);
    }
  }
  const PooledAttnReference reference(call);
  attend(call.params());
  int small = 0;
  for (int row = 0; row < 5; ++row) {
    for (int block = 0; block < 5; ++block) {
      const float weight = call.map[row * 5 + block], want = reference.wide.map[row * 5 + block];
      EXPECT_EQ(weight > 0, block <= row);
      EXPECT_EQ(std::isfinite(std::log(weight)), block <= row);
      if (block <= row) EXPECT_NEAR(std::log(weight), std::log(want), 0.02);
      small += weight > 0 && weight < 1e-37;
    }
  }
  EXPECT_EQ(small, 4);
}

TEST(PooledAttn, SameBitsInEveryRunAndForEveryThreadCount) {
  const Case shape = {.name = "",
                      .q_lens = {333, 40, 129},
                      .k_lens = {400, 40, 129},
                      .heads_q = 6,
                      .heads_kv = 3,
                      .block_q = 32,
                      .group_max = true,
                      .normalise = true};
  std::vector<Case> cases = with_and_without_o(shape);
  cases.push_back(cases[1]);
  cases[2].block_softmax = true;
  for (const Case& c : cases) {
    same_bits_for_every_thread_count<Call>(c, attend);
  }
}

void expect_error(const std::function<void(PooledAttnCall&, PooledAttnParams&)>& spoil,
                  const char* text) {
  kernels::expect_error(PooledAttnCall({.name = "", .q_lens = {100}, .k_lens = {100}}, DType::f32),
                        attend, spoil, {text});
}

TEST(PooledAttn, ErrorsSayWhatIsWrong) {
  using P = PooledAttnParams;
  expect_error([](Call&, P& p) { p.num_kv_heads = 3; }, "2 query heads do not share 3");
  expect_error([](Call&, P& p) { p.num_map_heads = 5; }, "5 map heads, want 2");
  expect_error([](Call&, P& p) { p.head_dim = 264; }, "cpu: head_dim is 264, want at most 256");
  expect_error([](Call&, P& p) { p.block_k = 24; }, "block_k is 24, want a multiple of 16");
  expect_error([](Call&, P& p) { p.block_softmax = true; }, "block_softmax is for the map alone");
  expect_error([](Call&, P& p) { p.scale = -1; }, "scale is -1");
  expect_error([](Call& c, P&) { c.cu_k[1] = 99; }, "cu_k goes from 0 to 99, want 0 to 100");
  expect_error([](Call&, P& p) { p.num_blocks = 1; }, "100 keys, more than the map's 1 blocks");
  expect_error([](Call& c, P& p) { p.num_rows = c.cu_rows[1] = 1; }, "has 1 rows, want 2");
}

TEST(PooledAttn, RefusedCallsAreNamedAsTheyWereMade) {
  expect_error([](Call&, PooledAttnParams& p) { p.scale = -1; }, "pooled_attn: ");
  expect_error(
      [](Call&, PooledAttnParams& p) {
        p.block_softmax = true;
        p.scale = -1;
      },
      "lookup_score: ");
}

}  // namespace
}  // namespace seer::kernels
