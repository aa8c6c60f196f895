// Every engine against the reference in double, on named odd cases; determinism; errors.

#include "seer/kernels/block_sparse_attn/block_sparse_attn.h"

#include <gtest/gtest.h>
#include <omp.h>

#include <cstring>
#include <functional>
#include <limits>

#include "seer/kernels/attention_engines.h"
#include "seer/kernels/block_sparse_attn/block_sparse_attn_case.h"
#include "seer/kernels/block_sparse_attn/cpu.h"
#include "seer/kernels/block_sparse_attn/reference.h"
#include "seer/kernels/closeness.h"

namespace seer::kernels {
namespace {

using Case = BlockSparseAttnCase;
using Call = BlockSparseAttnCall;

const std::vector<Case> kCases = {
    {.name = "one_token", .q_lens = {1}, .k_lens = {1}},
    {.name = "one_token_of_many", .q_lens = {1}, .k_lens = {200}, .heads_q = 8, .heads_kv = 2},
    {.name = "odd_tail", .q_lens = {201}, .k_lens = {201}},
    {.name = "empty_row", .q_lens = {300}, .k_lens = {300}, .density = 0.2, .keep_diagonal = false},
    {.name = "empty_sequence", .q_lens = {70, 0, 33, 20}, .k_lens = {70, 40, 33, 0}},
    {.name = "unequal_lengths", .q_lens = {5, 130, 64}, .k_lens = {64, 131, 320}},
    {.name = "gqa_7", .q_lens = {150}, .k_lens = {150}, .heads_q = 14, .heads_kv = 2},
    {.name = "gqa_7_lists_per_kv_head",
     .q_lens = {150},
     .k_lens = {150},
     .heads_q = 14,
     .heads_kv = 2,
     .lists_per_kv_head = true},
    {.name = "list_full", .q_lens = {256}, .k_lens = {256}, .density = 1},
    {.name = "only_diagonal", .q_lens = {256}, .k_lens = {256}, .density = 0},
    {.name = "chunked", .q_lens = {128}, .k_lens = {448}},
    {.name = "odd_offset", .q_lens = {100}, .k_lens = {337}},
    {.name = "q_longer_than_k", .q_lens = {200}, .k_lens = {90}},
    {.name = "not_causal", .q_lens = {90, 64}, .k_lens = {200, 70}, .causal = false},
    {.name = "strided", .q_lens = {130}, .k_lens = {190}, .padding = 24},
    {.name = "block_16", .q_lens = {150}, .k_lens = {150}, .block_q = 16, .block_k = 16},
    {.name = "block_16_lists_per_kv_head",
     .q_lens = {150},
     .k_lens = {150},
     .heads_q = 6,
     .heads_kv = 2,
     .block_q = 16,
     .block_k = 16,
     .lists_per_kv_head = true},
    {.name = "block_32", .q_lens = {150}, .k_lens = {170}, .block_q = 32, .block_k = 32},
    {.name = "block_48_80", .q_lens = {250}, .k_lens = {250}, .block_q = 48, .block_k = 80},
    {.name = "block_128", .q_lens = {300}, .k_lens = {300}, .block_q = 128, .block_k = 128},
    {.name = "block_128_16", .q_lens = {300}, .k_lens = {300}, .block_q = 128, .block_k = 16},
    {.name = "block_q_1", .q_lens = {40}, .k_lens = {100}, .block_q = 1, .block_k = 16},
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
    block_sparse_attn_reference(wide.params());
  }
  std::string compare(const Call& call, const Limits& o, const Limits& lse) const {
    const AttentionTensor got = call.o.widened();
    std::string wrong =
        far_from(reinterpret_cast<const float*>(got.bytes.data()),
                 reinterpret_cast<const float*>(wide.o.bytes.data()), got.bytes.size() / 4, o);
    if (!wrong.empty()) return "o: " + wrong;
    wrong = far_from(call.lse.data(), wide.lse.data(), wide.lse.size(), lse);
    return wrong.empty() ? "" : "lse: " + wrong;
  }
  Call wide;
};

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
      const bool dot = engine.element_bytes == 2;
      EXPECT_EQ(reference.compare(call, o_limits(dtype, dot), {1e-5, 1e-5, 1e-9}), "")
          << name(dtype) << " " << engine.name;
    });
  }
}

INSTANTIATE_TEST_SUITE_P(All, BlockSparseAttnCases, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

// One call on each engine that takes the dtype, after `change` has had its way with it.
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

void poison(AttentionTensor& x, int64_t begin, int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    for (int h = 0; h < x.heads; ++h) {
      for (int d = 0; d < x.head_dim; ++d) x.set(t, h, d, NAN);
    }
  }
}

TEST(BlockSparseAttn, NanInUnlistedBlockDoesNotLeak) {
  const Case shape = {.name = "", .q_lens = {256}, .k_lens = {256}, .density = 1};
  const auto change = [](Call& call) {
    std::vector<int32_t> kept;
    for (size_t i = 0; i < call.count.size(); ++i) {
      const int64_t old = call.begin[i];
      call.begin[i] = static_cast<int64_t>(kept.size());
      for (int n = 0; n < call.count[i]; ++n) {
        if (call.list[old + n] != 1) kept.push_back(call.list[old + n]);
      }
      call.count[i] = static_cast<int32_t>(kept.size() - call.begin[i]);
    }
    call.list = kept;
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
    for (int64_t t = 0; t < 64; ++t) EXPECT_TRUE(std::isnan(call.o.at(t, 0, 5))) << t;
  });
}

// Scores far beyond what exp() of a float holds, growing and falling from block to block.
TEST(BlockSparseAttn, LargeScores) {
  const Case shape = {.name = "", .q_lens = {256}, .k_lens = {256}, .density = 1};
  const auto change = [](Call& call) {
    for (int64_t t = 0; t < 256; ++t) {
      for (int d = 0; d < 64; ++d) {
        call.k.set(t, 0, d, call.k.at(t, 0, d) * float(1 + 30 * (t / 64 % 3)));
      }
    }
  };
  on_every_engine(shape, change, [](Call& call, const TileEngine& engine) {
    const bool dot = engine.element_bytes == 2;
    EXPECT_EQ(Reference(call).compare(call,
                                      o_limits(call.q.dtype, dot).absolute < 1e-5
                                          ? Limits{5e-5, 2e-5, 1e-9}
                                          : Limits{1e-2, 5e-3, 1.5e-5},
                                      {1e-5, 1e-5, 1e-9}),
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
  for (const DType dtype : {DType::f32, DType::bf16}) {
    Call first(shape, dtype);
    block_sparse_attn(first.params());
    for (const int threads : {1, 2, 3, 2}) {
      Call again(shape, dtype);
      const int before = omp_get_max_threads();
      omp_set_num_threads(threads);
      block_sparse_attn(again.params());
      omp_set_num_threads(before);
      EXPECT_EQ(std::memcmp(first.o.bytes.data(), again.o.bytes.data(), first.o.bytes.size()), 0);
      EXPECT_EQ(first.lse, again.lse);
    }
  }
}

void expect_error(const std::function<void(Call&, BlockSparseAttnParams&)>& spoil,
                  const std::string& text) {
  const Case shape = {.name = "", .q_lens = {100}, .k_lens = {100}, .density = 1};
  Call call(shape, DType::f32);
  BlockSparseAttnParams p = call.params();
  spoil(call, p);
  try {
    block_sparse_attn(p);
    FAIL() << "no error; want " << text;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(text), std::string::npos) << error.what();
  }
}

TEST(BlockSparseAttn, ErrorsSayWhatIsWrong) {
  using P = BlockSparseAttnParams;
  expect_error([](Call&, P& p) { p.num_kv_heads = 3; }, "2 query heads do not share 3");
  expect_error([](Call&, P& p) { p.lists.num_heads = 5; }, "5 list heads, want 2");
  expect_error([](Call&, P& p) { p.head_dim = 60; }, "cpu: head_dim is 60");
  expect_error([](Call&, P& p) { p.lists.block_k = 24; }, "want a multiple of 16");
  expect_error([](Call&, P& p) { p.scale = 0; }, "scale is 0");
  expect_error([](Call& c, P&) { c.list[2] = 2; }, "row 1 of sequence 0 lists key block 2");
  expect_error([](Call& c, P&) { std::swap(c.list[1], c.list[2]); }, "lists key block 0 after 1");
  expect_error([](Call& c, P&) { c.cu_q[1] = 99; }, "cu_q goes from 0 to 99, want 0 to 100");
  expect_error([](Call& c, P& p) { p.lists.num_rows = c.cu_rows[1] = 1; }, "has 1 rows, want 2");
}

}  // namespace
}  // namespace seer::kernels
