// Needs of heads against plain loops, and projections against the singular values that they leave out.

#include "seer/models/gates/head_needs.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "seer/base/error.h"
#include "seer/models/testing/test_model.h"

namespace seer::models {
namespace {

constexpr int kBlock = 16;

class HeadNeedsTest : public testing::Test {
 protected:
  HeadNeedsTest() : model_(test::small_model()), gates_(make_gates(model_)) {}

  static Gates make_gates(const Decoder& model) {
    io::GateConfig config;
    config.block_size = kBlock;
    Gates gates = Gates::create(config, model, 1);
    for (GateWeights& w : gates.layers()) w.k = w.k.mul(20);  // scores clear of one another
    return gates;
  }
  static at::Tensor ids(int64_t length, uint64_t seed) {
    return at::tensor(at::ArrayRef<int32_t>(test::some_ids(length, seed))).to(at::kLong);
  }
  // visit(input) for every layer of a dense pass.
  void each_layer(const at::Tensor& window,
                  const std::function<void(const AttentionInput&)>& visit) const {
    const at::NoGradGuard no_grad;
    const Sequences sequences{.q_lens = {window.numel()}, .k_lens = {window.numel()}};
    model_.hidden(window, sequences, [&](const AttentionInput& input) {
      visit(input);
      return dense_attention(input);
    });
  }

  const Decoder model_;
  const Gates gates_;
};

// The k best blocks of a row and its own, as the published rule has it.
std::set<int64_t> listed(const at::Tensor& row, int64_t own, double density, int64_t num_blocks) {
  const auto k = std::max<int64_t>(1, int64_t((1 - std::sqrt(1 - density)) * double(num_blocks)));
  std::vector<std::pair<float, int64_t>> blocks;
  for (int64_t j = 0; j <= own; ++j) blocks.push_back({-row[j].item<float>(), j});
  std::sort(blocks.begin(), blocks.end());
  std::set<int64_t> kept = {own};
  for (int64_t i = 0; i < std::min<int64_t>(k, own + 1); ++i) kept.insert(blocks[i].second);
  return kept;
}

TEST_F(HeadNeedsTest, LossesAreThoseOfPlainLoops) {
  constexpr double kDensity = 0.3;
  HeadNeeds needs(model_, gates_, kDensity);
  at::Tensor want = at::zeros({2, 4}, at::kDouble);
  int64_t rows = 0;
  for (const int64_t length : {300, 265}) {
    const at::Tensor window = ids(length, static_cast<uint64_t>(length));
    needs.add(window);
    const int64_t n = (length + kBlock - 1) / kBlock;
    rows += n;
    each_layer(window, [&](const AttentionInput& in) {
      const auto ragged = torch_ops::make_ragged({length}, {length}, kBlock, at::kCPU);
      const at::Tensor scores = gates_.scores(in, ragged);
      for (int64_t h = 0; h < 4; ++h) {
        const at::Tensor q = in.q.select(1, h), k = in.k.select(1, h / 2);
        at::Tensor s = q.matmul(k.t()).mul(in.scale);
        s = s.masked_fill(at::ones_like(s, at::kBool).triu(1), -1e30).softmax(-1);
        s = at::constant_pad_nd(s, {0, n * kBlock - length, 0, n * kBlock - length});
        const at::Tensor map = s.view({n, kBlock, n, kBlock}).amax({1, 3});
        for (int64_t row = 0; row < n; ++row) {
          const auto best = listed(map[row], row, kDensity, n),
                     kept = listed(scores[h][row], row, kDensity, n);
          for (const int64_t j : best) {
            if (j == 0 || j > row - 4 || kept.contains(j)) continue;
            want[in.layer][h] += map[row][j].item<double>();
          }
        }
      }
    });
  }
  want = want / double(rows);
  EXPECT_GT(want.min().item<double>(), 0);
  EXPECT_LE(test::largest_difference(needs.lost(), want), 1e-6);
}

TEST_F(HeadNeedsTest, NeediestAreThoseThatLoseMost) {
  HeadNeeds needs(model_, gates_);
  needs.add(ids(400, 1));
  const at::Tensor lost = needs.lost().flatten();
  const auto heads = needs.neediest(3);
  std::set<int64_t> found;
  for (size_t layer = 0; layer < heads.size(); ++layer) {
    EXPECT_TRUE(std::is_sorted(heads[layer].begin(), heads[layer].end()));
    for (const int head : heads[layer]) found.insert(static_cast<int64_t>(layer) * 4 + head);
  }
  ASSERT_EQ(found.size(), 3);
  const at::Tensor third = std::get<0>(lost.topk(3)).min();
  for (const int64_t at : found) EXPECT_GE(lost[at].item<double>(), third.item<double>());
  EXPECT_THAT(needs.neediest(0), testing::Each(testing::IsEmpty()));
}

TEST_F(HeadNeedsTest, IsWatchedAndStopped) {
  HeadNeeds needs(model_, gates_);
  std::vector<std::pair<int64_t, int64_t>> seen;
  needs.add(ids(265, 1), [&](int64_t layer, int64_t layers) { seen.push_back({layer, layers}); });
  EXPECT_EQ(seen, (std::vector<std::pair<int64_t, int64_t>>{{1, 2}, {2, 2}}));
  EXPECT_TRUE(needs.has_any());
  int layers = 0;
  const auto stop = [&](int64_t, int64_t) {
    ++layers;
    fail("enough");
  };
  EXPECT_THROW(needs.add(ids(265, 1), stop), Error);
  EXPECT_EQ(layers, 1);
}

// The mean squared error of products of rank r is the sum of the other singular values' squares: no projections have less.
TEST_F(HeadNeedsTest, ProjectionsAreTheBestOfTheirRank) {
  HeadNeeds needs(model_, gates_);
  const at::Tensor window = ids(300, 2);
  needs.add(window);
  each_layer(window, [&](const AttentionInput& in) {
    const int head = 3;
    const at::Tensor q = in.q.select(1, head).to(at::kDouble),
                     k = in.k.select(1, 1).to(at::kDouble);
    const at::Tensor exact = q.matmul(k.t());
    const at::Tensor values =
        at::linalg_svdvals(exact).div(300);  // its singular values are 300 times those of the roots
    for (const int rank : {4, 16}) {
      const auto [a, c] = needs.best_projections(in.layer, head, rank);
      ASSERT_EQ(a.sizes(), (std::vector<int64_t>{16, rank}));
      const at::Tensor near = q.matmul(a.to(at::kDouble)).matmul(k.matmul(c.to(at::kDouble)).t());
      const double error = near.sub(exact).pow(2).mean().item<double>();
      const double least = values.narrow(0, rank, 300 - rank).pow(2).sum().item<double>();
      EXPECT_NEAR(error, least, 1e-5 * exact.pow(2).mean().item<double>()) << rank;
    }
  });
}

TEST_F(HeadNeedsTest, ErrorsSayWhatIsWrong) {
  HeadNeeds needs(model_, gates_);
  const auto error_of = [](const auto& call) -> std::string {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    return "none";
  };
  EXPECT_THAT(error_of([&] { needs.add(ids(240, 1)); }),
              testing::HasSubstr("240 tokens is too short to find lookup heads: want 241 or more"));
  EXPECT_THAT(error_of([&] { needs.lost(); }), testing::HasSubstr("no text was given"));
  needs.add(ids(256, 1));
  EXPECT_THAT(error_of([&] { needs.best_projections(0, 0, 17); }),
              testing::HasSubstr("to 17 features, want 1 to 16"));
}

TEST_F(HeadNeedsTest, ProcessesJoinWhatTheyTookIn) {
  const at::Tensor first = ids(300, 1), second = ids(265, 2);
  HeadNeeds both(model_, gates_), one(model_, gates_), other(model_, gates_), idle(model_, gates_);
  both.add(first);
  both.add(second);
  one.add(first);
  other.add(second);
  std::vector<at::Tensor> others;
  other.join([&](const at::Tensor& x) { others.push_back(x.clone()); });
  size_t i = 0;
  idle.join([&](const at::Tensor& x) { x.add_(others.at(i++)); });
  EXPECT_TRUE(at::allclose(idle.lost(), other.lost(), 1e-12, 1e-12));
  i = 0;
  one.join([&](const at::Tensor& x) { x.add_(others.at(i++)); });
  EXPECT_EQ(i, others.size());
  EXPECT_TRUE(at::allclose(one.lost(), both.lost(), 1e-12, 1e-12));
  for (int head = 0; head < 4; ++head) {
    const auto [a, c] = one.best_projections(1, head, 16);
    const auto [b, d] = both.best_projections(1, head, 16);
    EXPECT_TRUE(at::allclose(a.matmul(c.t()), b.matmul(d.t()), 1e-4, 1e-5)) << head;
  }
}

}  // namespace
}  // namespace seer::models
