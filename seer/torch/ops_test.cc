// The ops as C++ calls: prefix sums from lengths, a gate trained for one step, errors on one line.
// tests/python/test_ops.py compares values with plain torch.

#include "seer/torch/ops.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "seer/torch/steps.h"

namespace seer::torch_ops {
namespace {

using testing::HasSubstr;

std::vector<int32_t> ints(const at::Tensor& x) {
  return {x.data_ptr<int32_t>(), x.data_ptr<int32_t>() + x.numel()};
}

template <class Call>
std::string error_of(const Call& call) {
  try {
    call();
  } catch (const c10::Error& error) {
    return error.what_without_backtrace();
  }
  return "no error";
}

TEST(MakeRagged, OfLengths) {
  const Ragged r = make_ragged({32, 0, 5}, {96, 20, 5}, 16, at::kCPU);
  EXPECT_EQ(ints(r.cu_q), (std::vector<int32_t>{0, 32, 32, 37}));
  EXPECT_EQ(ints(r.cu_k), (std::vector<int32_t>{0, 96, 116, 121}));
  EXPECT_EQ(ints(r.cu_rows), (std::vector<int32_t>{0, 2, 2, 3}));
  EXPECT_EQ(ints(r.cu_blocks), (std::vector<int32_t>{0, 6, 8, 9}));
  EXPECT_EQ(r.num_rows, 3);
  EXPECT_EQ(r.total_blocks, 9);
  EXPECT_EQ(r.num_blocks, 6);
  EXPECT_EQ(r.block, 16);
  EXPECT_EQ(r.block_q, 16);
}

TEST(MakeRagged, RowsOfTokens) {
  const Ragged r = make_ragged({32, 0, 5}, {96, 20, 5}, 1, 16, at::kCPU);
  EXPECT_EQ(ints(r.cu_rows), ints(r.cu_q));
  EXPECT_EQ(ints(r.cu_blocks), (std::vector<int32_t>{0, 6, 8, 9}));
  EXPECT_EQ(r.num_rows, 37);
  EXPECT_EQ(r.num_blocks, 6);
  EXPECT_EQ(r.block, 16);
  EXPECT_EQ(r.block_q, 1);
}

TEST(MakeRagged, Refused) {
  EXPECT_THAT(error_of([] { make_ragged({1}, {1}, 24, at::kCPU); }), HasSubstr("block is 24"));
  EXPECT_THAT(error_of([] { make_ragged({-1}, {1}, 16, at::kCPU); }), HasSubstr("length -1"));
  EXPECT_THAT(error_of([] { make_ragged({1, 2}, {1}, 16, at::kCPU); }), HasSubstr("as many"));
  for (const int64_t len : {int64_t{1} << 28, int64_t{1} << 31, INT64_MAX}) {
    EXPECT_THAT(error_of([&] { make_ragged({1, len}, {1, 1}, 16, at::kCPU); }),
                HasSubstr("a pack has more than 268435456"));
  }
  EXPECT_THAT(error_of([] { make_ragged({1}, {1}, 0, 16, at::kCPU); }), HasSubstr("block_q is 0"));
  EXPECT_THAT(error_of([] { make_ragged({1}, {1}, 1, 24, at::kCPU); }), HasSubstr("block_k is 24"));
}

// The largest weight of a row is that of its tokens.
TEST(PooledAttn, RowsOfTokensMakeUpRowsOfBlocks) {
  at::manual_seed(3);
  const at::Tensor q = at::randn({96, 4, 32}), k = at::randn({160, 2, 32});
  const auto map_of = [&](int block_q) {
    const Ragged ragged = make_ragged({64, 32}, {64, 96}, block_q, 16, at::kCPU);
    return std::get<2>(pooled_attn(q, k, k, ragged, 0.2, true, true, false));
  };
  const at::Tensor of_tokens = map_of(1);
  EXPECT_EQ(of_tokens.sizes(), (at::IntArrayRef{2, 96, 6}));
  EXPECT_TRUE(at::equal(of_tokens.view({2, 6, 16, 6}).amax(2), map_of(16)));
}

TEST(PooledAttn, OnlyItTakesTwoBlockSizes) {
  const Ragged ragged = make_ragged({16}, {16}, 1, 16, at::kCPU);
  const at::Tensor x = at::randn({16, 2, 8}), scores = at::randn({2, 16, 1});
  const auto wants_one = HasSubstr("rows of 1 tokens and key blocks of 16, want one size");
  EXPECT_THAT(error_of([&] { attn_gate_score(x, x.narrow(0, 0, 1), ragged); }), wants_one);
  EXPECT_THAT(error_of([&] { block_select(scores, ragged, {.strength = {1}}); }), wants_one);
  EXPECT_THAT(error_of([&] { block_sparse_attn(x, x, x, ragged, {}, 1, true); }), wants_one);
}

// A step against the gradient makes the loss smaller by about the gradient's square.
TEST(Gate, GradientIsADescent) {
  at::manual_seed(1);
  const Ragged ragged = make_ragged({80, 50}, {80, 50}, 16, at::kCPU);
  const at::Tensor q = at::randn({130, 4, 32}), k = at::randn({130, 2, 32});
  const auto pooled = [&](const at::Tensor& x, int64_t pools) {
    return attn_gate_pool(x, ragged.cu_k, ragged.cu_blocks, ragged.total_blocks, 16, pools);
  };
  const at::Tensor cos = at::randn({ragged.total_blocks, 16});
  const at::Tensor sin = at::randn({ragged.total_blocks, 16});
  const at::Tensor q_gate = attn_gate_project(pooled(q, 4), {}, cos, sin);
  const at::Tensor features = pooled(k, 7);
  const at::Tensor target = std::get<2>(pooled_attn(q, k, k, ragged, 0.2, true, false, true));
  const auto loss = [&](const at::Tensor& weight) {
    const at::Tensor k_gate = attn_gate_project(features, weight, cos, sin);
    return gate_loss(attn_gate_score(q_gate, k_gate, ragged), target, ragged, 0.25, "kl");
  };

  at::Tensor weight = (0.02 * at::randn({4, 96, 32})).requires_grad_();
  const at::Tensor before = loss(weight);
  before.backward();
  const at::Tensor gradient = weight.grad();
  ASSERT_TRUE(gradient.defined());
  const double square = gradient.to(at::kDouble).square().sum().item<double>();
  const double rate = 1e-2 * before.item<double>() / square;  // about a hundredth less
  const double after = loss(weight.detach() - rate * gradient).item<double>();
  EXPECT_NEAR((before.item<double>() - after) / (rate * square), 1, 0.05);
}

TEST(Gate, SelectionFeedsAttention) {
  at::manual_seed(2);
  const Ragged ragged = make_ragged({80, 0, 50}, {80, 7, 90}, 16, at::kCPU);
  const at::Tensor q = at::randn({130, 4, 32}), k = at::randn({177, 2, 32});
  const at::Tensor scores = at::randn({4, ragged.num_rows, ragged.num_blocks});
  Selection selection;
  selection.strength = {1.0};  // everything: dense attention
  const auto lists = block_select(scores, ragged, selection);
  const auto [o, lse] = block_sparse_attn(q, k, k, ragged, lists, 0.2, true);
  const auto [dense_o, dense_lse, map] = pooled_attn(q, k, k, ragged, 0.2, true, false, false);
  EXPECT_TRUE(at::allclose(o, dense_o, 1e-5, 1e-5));
  EXPECT_TRUE(at::allclose(lse, dense_lse, 1e-5, 1e-5));
}

// Writes down what it is told.
struct Recorder : StepWatcher {
  void enter(Step step) override { steps.push_back(step); }
  void chose(const BlockLists&, double) override {}
  std::vector<Step> steps;
};

TEST(Gate, StepsAreWatched) {
  at::manual_seed(4);
  const Ragged ragged = make_ragged({80, 50}, {80, 90}, 16, at::kCPU);
  const at::Tensor q = at::randn({130, 4, 32}), k = at::randn({170, 2, 32});
  const at::Tensor q_gate = at::randn({9, 4, 8}), k_gate = at::randn({11, 2, 8});
  Selection selection;
  selection.strength = {0.4};
  Recorder recorder;
  {
    const StepWatch watch(recorder);
    const at::Tensor scores = attn_gate_score(q_gate, k_gate, ragged);
    const BlockLists lists = choose_blocks(scores, ragged, selection);
    block_sparse_attn(q, k, k, ragged, lists, 0.2, true);
  }
  EXPECT_THAT(recorder.steps, testing::ElementsAre(Step::score, Step::none, Step::select,
                                                   Step::attend, Step::none, Step::none));
  EXPECT_EQ(StepWatcher::current(), nullptr);
}

TEST(Gate, ErrorsAreOneLine) {
  const Ragged ragged = make_ragged({16}, {16}, 16, at::kCPU);
  const at::Tensor x = at::randn({16, 2, 8}).requires_grad_();
  const std::string error =
      error_of([&] { attn_gate_pool(x, ragged.cu_k, ragged.cu_blocks, 1, 16, 7); });
  EXPECT_EQ(error,
            "seer::attn_gate_pool: no gradient with respect to x; detach it, as gates do not train "
            "their model");
}

}  // namespace
}  // namespace seer::torch_ops
