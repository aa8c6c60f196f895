#include <ATen/ops/cat.h>
#include <gtest/gtest.h>

#include <cmath>
#include <ostream>

#include "seer/base/error.h"
#include "seer/models/attention.h"
#include "seer/models/testing/test_model.h"

namespace seer::models {
namespace {

constexpr double kBound = 2e-6;

struct Case {
  const char* name;
  std::vector<int64_t> q_lens, k_lens;
  int64_t window;
  friend void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }
};
const Case kCases[] = {
    {"one_token", {1}, {1}, 0},
    {"one", {130}, {130}, 0},
    {"batch", {70, 70, 70}, {70, 70, 70}, 0},
    {"unequal", {50, 1, 90}, {50, 1, 90}, 0},
    {"empty_sequence", {50, 0, 20}, {50, 0, 20}, 0},
    {"chunk", {60}, {200}, 0},
    {"decode", {1}, {200}, 0},
    {"decode_of_a_batch", {1, 1, 1}, {1, 200, 65}, 0},
    {"decode_of_three_tokens", {3, 3}, {3, 70}, 0},
    {"window", {300}, {300}, 33},
    {"window_of_one", {40}, {40}, 1},
    {"window_longer_than_text", {40}, {40}, 64},
    {"window_unequal", {300, 20}, {300, 20}, 33},
    {"window_chunk", {100}, {300}, 33},
    {"window_decode", {1}, {300}, 33},
    {"window_decode_of_a_batch", {2, 2}, {300, 20}, 33},
    {"several_pieces", {1500}, {2100}, 0},
    {"several_window_pieces", {2500}, {2600}, 100},
};

struct Inputs {
  Sequences sequences;
  at::Tensor q, k, v;
  int64_t window;
  AttentionInput get() const {
    return {0, sequences, {}, {}, q, k, v, 1 / std::sqrt(16.0), window};
  }
};

Inputs make(const Case& c, int64_t kv_heads) {
  Sequences sequences{c.q_lens, c.k_lens, 0};
  const int64_t num_keys = Sequences{c.k_lens, c.k_lens, 0}.num_tokens();
  return {sequences, test::normal({sequences.num_tokens(), 4, 16}, 1),
          test::normal({num_keys, kv_heads, 16}, 2), test::normal({num_keys, kv_heads, 16}, 3),
          c.window};
}

at::Tensor expected(const Inputs& inputs) {
  std::vector<at::Tensor> parts;
  int64_t q_begin = 0, k_begin = 0;
  const Sequences& s = inputs.sequences;
  for (size_t b = 0; b < s.q_lens.size(); ++b) {
    parts.push_back(test::plain_attention(
        inputs.q.narrow(0, q_begin, s.q_lens[b]), inputs.k.narrow(0, k_begin, s.k_lens[b]),
        inputs.v.narrow(0, k_begin, s.k_lens[b]), inputs.get().scale, inputs.window));
    q_begin += s.q_lens[b];
    k_begin += s.k_lens[b];
  }
  return at::cat(parts, 0);
}

class DenseAttention : public testing::TestWithParam<Case> {};

TEST_P(DenseAttention, EqualsPlainFormula) {
  for (const int64_t kv_heads : {1, 2, 4}) {
    const Inputs inputs = make(GetParam(), kv_heads);
    const at::Tensor o = dense_attention(inputs.get());
    ASSERT_EQ(o.sizes(), inputs.q.sizes());
    EXPECT_LE(test::largest_difference(o, expected(inputs)), kBound);
  }
}

TEST_P(DenseAttention, GradientsEqualPlainFormula) {
  const auto gradients = [&](const auto& attention) {
    Inputs inputs = make(GetParam(), 2);
    for (at::Tensor* x : {&inputs.q, &inputs.k, &inputs.v}) x->requires_grad_(true);
    const at::Tensor weight = test::normal(inputs.q.sizes().vec(), 9);
    attention(inputs).mul(weight).sum().backward();
    return std::vector<at::Tensor>{inputs.q.grad(), inputs.k.grad(), inputs.v.grad()};
  };
  const auto found = gradients([](const Inputs& i) { return dense_attention(i.get()); });
  const auto wanted = gradients([](const Inputs& i) { return expected(i); });
  for (size_t i = 0; i < found.size(); ++i) {
    EXPECT_LE(test::largest_difference(found[i], wanted[i]), 1e-5) << "input " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Cases, DenseAttention, testing::ValuesIn(kCases),
                         [](const auto& info) { return std::string(info.param.name); });

TEST(DenseAttentionInput, StridedHeads) {
  Inputs inputs = make(kCases[1], 2);
  const at::Tensor wanted = expected(inputs);
  inputs.q = at::cat({inputs.q, inputs.q}, 1).narrow(1, 4, 4);
  inputs.k = inputs.k.transpose(0, 1).contiguous().transpose(0, 1);
  EXPECT_LE(test::largest_difference(dense_attention(inputs.get()), wanted), kBound);
}

TEST(DenseAttentionInput, MoreQueriesThanKeysIsAnError) {
  const Inputs inputs = make({"", {5}, {4}, 0}, 2);
  EXPECT_THROW(dense_attention(inputs.get()), Error);
}

TEST(DenseAttentionInput, LengthOfUnfinishedPromptDecidesAboutWindow) {
  Inputs inputs = make({"", {20}, {20}, 33}, 2);
  EXPECT_FALSE(window_cuts(inputs.get()));
  inputs.sequences.prompt_len = 40;
  EXPECT_TRUE(window_cuts(inputs.get()));
}

}  // namespace
}  // namespace seer::models
