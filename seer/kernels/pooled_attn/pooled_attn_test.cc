// Every engine against the reference in double, on named odd cases; determinism; errors.

#include "seer/kernels/pooled_attn/pooled_attn.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>

#include "seer/kernels/attention_engines.h"
#include "seer/kernels/closeness.h"
#include "seer/kernels/pooled_attn/cpu.h"
#include "seer/kernels/pooled_attn/pooled_attn_case.h"
#include "seer/kernels/pooled_attn/reference.h"

namespace seer::kernels {
namespace {

using Case = PooledAttnCase;
using Call = PooledAttnCall;

const std::vector<Case> kCases = {
    {.name = "one_token", .q_lens = {1}, .k_lens = {1}, .normalise = true},
    {.name = "one_token_of_many", .q_lens = {1}, .k_lens = {200}, .heads_q = 8, .heads_kv = 2},
    {.name = "odd_tail", .q_lens = {201}, .k_lens = {201}, .normalise = true},
    {.name = "empty_sequence",
     .q_lens = {70, 0, 33, 20},
     .k_lens = {70, 40, 33, 0},
     .normalise = true},
    {.name = "unequal_lengths", .q_lens = {5, 130, 64}, .k_lens = {64, 131, 320}},
    {.name = "gqa_7", .q_lens = {150}, .k_lens = {150}, .heads_q = 14, .heads_kv = 2},
    {.name = "gqa_7_group_max",
     .q_lens = {150},
     .k_lens = {150},
     .heads_q = 14,
     .heads_kv = 2,
     .group_max = true,
     .normalise = true},
    {.name = "chunked", .q_lens = {128}, .k_lens = {448}},
    {.name = "odd_offset", .q_lens = {100}, .k_lens = {337}, .normalise = true},
    {.name = "q_longer_than_k", .q_lens = {200}, .k_lens = {90}, .normalise = true},
    {.name = "not_causal", .q_lens = {90, 64}, .k_lens = {200, 70}, .causal = false},
    {.name = "strided", .q_lens = {130}, .k_lens = {190}, .padding = 24},
    {.name = "block_q_1", .q_lens = {150, 3}, .k_lens = {150, 80}, .block_q = 1, .normalise = true},
    {.name = "block_q_1_group_max",
     .q_lens = {90},
     .k_lens = {90},
     .heads_q = 4,
     .heads_kv = 2,
     .block_q = 1,
     .block_k = 16,
     .group_max = true,
     .normalise = true},
    {.name = "block_q_24", .q_lens = {150}, .k_lens = {150}, .block_q = 24, .block_k = 16},
    {.name = "block_q_100", .q_lens = {250}, .k_lens = {250}, .block_q = 100},
    {.name = "block_16", .q_lens = {150}, .k_lens = {150}, .block_q = 16, .block_k = 16},
    {.name = "block_32", .q_lens = {150}, .k_lens = {170}, .block_q = 32, .block_k = 32},
    {.name = "block_48_80", .q_lens = {250}, .k_lens = {250}, .block_q = 48, .block_k = 80},
    {.name = "block_128", .q_lens = {300}, .k_lens = {300}, .block_q = 128, .block_k = 128},
    {.name = "d_8", .q_lens = {150}, .k_lens = {150}, .head_dim = 8},
    {.name = "d_40", .q_lens = {150}, .k_lens = {150}, .head_dim = 40},
    {.name = "d_96", .q_lens = {150}, .k_lens = {150}, .head_dim = 96},
    {.name = "d_128", .q_lens = {150}, .k_lens = {150}, .head_dim = 128},
    {.name = "d_256", .q_lens = {150}, .k_lens = {150}, .head_dim = 256},
};

Limits o_limits(DType dtype, bool has_bf16_dot) {
  if (has_bf16_dot) return {1e-2, 5e-3, 1.5e-5};  // p and o are rounded to 8 bits
  if (dtype == DType::bf16) return {4e-3, 2.5e-3, 4e-6};
  if (dtype == DType::f16) return {5e-4, 3e-4, 1e-7};
  return {2e-6, 1e-6, 1e-12};
}

// The same call in f32, by the reference.
struct Reference {
  explicit Reference(const Call& call) : wide(call) {
    wide.q = call.q.widened();
    wide.k = call.k.widened();
    wide.v = call.v.widened();
    wide.o = AttentionTensor(DType::f32, call.q.tokens, call.q.heads, call.q.head_dim);
    pooled_attn_reference(wide.params());
  }
  std::string compare(const Call& call, const Limits& o) const {
    const AttentionTensor got = call.o.widened();
    std::string wrong = far_from(reinterpret_cast<const float*>(got.bytes.data()),
                                 reinterpret_cast<const float*>(wide.o.bytes.data()),
                                 got.bytes.size() / sizeof(float), o);
    if (!wrong.empty()) return "o: " + wrong;
    wrong = far_from(call.lse.data(), wide.lse.data(), wide.lse.size(), {1e-5, 1e-5, 1e-9});
    if (!wrong.empty()) return "lse: " + wrong;
    // Scores and lse are f32 in every engine, so the map is as exact for bf16.
    wrong = far_from(call.map.data(), wide.map.data(), wide.map.size(), {1e-5, 1e-5, 1e-9});
    return wrong.empty() ? "" : "map: " + wrong;
  }
  Call wide;
};

class PooledAttnCases : public testing::TestWithParam<Case> {};

TEST_P(PooledAttnCases, EveryEngineMatchesTheReference) {
  for (const DType dtype : {DType::f32, DType::bf16, DType::f16}) {
    Call call(GetParam(), dtype);
    const Reference reference(call);
    for_each_engine(dtype, [&](const TileEngine& engine) {
      call.o =
          AttentionTensor(dtype, call.q.tokens, call.q.heads, call.q.head_dim, call.shape.padding);
      call.lse.assign(call.lse.size(), NAN);
      call.map.assign(call.map.size(), NAN);
      pooled_attn_cpu(call.params(), engine);
      EXPECT_EQ(reference.compare(call, o_limits(dtype, engine.element_bytes == 2)), "")
          << name(dtype) << " " << engine.name;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(All, PooledAttnCases, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(PooledAttn, SameBitsInEveryRunAndForEveryThreadCount) {
  const Case shape = {.name = "",
                      .q_lens = {333, 40, 129},
                      .k_lens = {400, 40, 129},
                      .heads_q = 6,
                      .heads_kv = 3,
                      .block_q = 32,
                      .group_max = true,
                      .normalise = true};
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Call first(shape, dtype);
    pooled_attn(first.params());
    for (const int threads : {1, 2, 3, 2}) {
      Call again(shape, dtype);
      const int before = omp_get_max_threads();
      omp_set_num_threads(threads);
      pooled_attn(again.params());
      omp_set_num_threads(before);
      EXPECT_EQ(std::memcmp(first.o.bytes.data(), again.o.bytes.data(), first.o.bytes.size()), 0);
      EXPECT_EQ(first.lse, again.lse);
      EXPECT_EQ(first.map, again.map);
    }
  }
}

void expect_error(const std::function<void(Call&, PooledAttnParams&)>& spoil,
                  const std::string& text) {
  Call call({.name = "", .q_lens = {100}, .k_lens = {100}}, DType::f32);
  PooledAttnParams p = call.params();
  spoil(call, p);
  try {
    pooled_attn(p);
    FAIL() << "no error; want " << text;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST(PooledAttn, ErrorsSayWhatIsWrong) {
  using P = PooledAttnParams;
  expect_error([](Call&, P& p) { p.num_kv_heads = 3; }, "2 query heads do not share 3");
  expect_error([](Call&, P& p) { p.num_map_heads = 5; }, "5 map heads, want 2");
  expect_error([](Call&, P& p) { p.head_dim = 60; }, "cpu: head_dim is 60");
  expect_error([](Call&, P& p) { p.block_k = 24; }, "block_k is 24, want a multiple of 16");
  expect_error([](Call&, P& p) { p.scale = -1; }, "scale is -1");
  expect_error([](Call& c, P&) { c.cu_k[1] = 99; }, "cu_k goes from 0 to 99, want 0 to 100");
  expect_error([](Call&, P& p) { p.num_blocks = 1; }, "100 keys, more than the map's 1 blocks");
  expect_error([](Call& c, P& p) { p.num_rows = c.cu_rows[1] = 1; }, "has 1 rows, want 2");
}

}  // namespace
}  // namespace seer::kernels
