// "duo": how blocks are shared out among heads, and which heads see all.

#include <ATen/core/grad_mode.h>
#include <ATen/ops/tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "seer/base/random.h"
#include "seer/models/methods/duo_budget.h"
#include "seer/models/sparse_attention.h"
#include "seer/models/testing/test_model.h"

namespace seer::models {
namespace {

TEST(Duo, AllHeadsTogetherHaveTheBlocksOfTheBudget) {
  for (const int64_t n : {1, 2, 7, 128}) {
    for (const int64_t per_row : {1, 2, 3, 6, 20, 128}) {
      for (const int64_t heads : {1, 2, 32}) {
        const DuoBudget budget(n, per_row, heads, /*fewest=*/3);
        int64_t blocks = 0, want = 0, last = n * n;
        for (int64_t head = 0; head < heads; ++head) {
          int64_t its = 0;
          for (int64_t row = 0; row < n; ++row) {
            const int64_t kept = budget.blocks(head, row);
            EXPECT_GE(kept, std::min({row + 1, per_row, int64_t{3}}));
            EXPECT_LE(kept, row + 1);
            its += kept;
            want += std::min(row + 1, per_row);
          }
          EXPECT_LE(its, last) << "the neediest first";
          last = its;
          blocks += its;
        }
        EXPECT_EQ(blocks, want) << n << " " << per_row << " " << heads;
      }
    }
  }
  EXPECT_EQ(DuoBudget(128, 20, 32, 3).retrieval(), 32 * (20 * 128 - 190) / 2 / (128 * 129 / 2));
  EXPECT_EQ(DuoBudget(128, 3, 32, 3).retrieval(), 0) << "nothing is left for them";
  EXPECT_EQ(DuoBudget(128, 128, 32, 3).blocks(31, 100), 101);
}

// Of each head of the model, on random tokens that come four times: the mean weight on the same token before and
// on what followed it.
std::vector<double> plain_retrieval(const Decoder& model, uint64_t seed) {
  Random random(seed);
  std::vector<int64_t> ids;
  for (int i = 0; i < 256; ++i) {
    ids.push_back(static_cast<int64_t>(random.below(model.config().vocab_size)));
  }
  for (int i = 256; i < 1024; ++i) ids.push_back(ids[static_cast<size_t>(i - 256)]);
  std::vector<double> found;
  const Sequences sequences{{1024}, {1024}, 0};
  model.hidden(at::tensor(ids, at::kLong), sequences, [&](const AttentionInput& input) {
    for (int64_t head = 0; head < input.q.size(1); ++head) {
      const at::Tensor logits =
          input.q.select(1, head).matmul(input.k.select(1, head / 2).t()).mul(input.scale);
      double sum = 0;
      for (int64_t i = 256; i < 1024; ++i) {
        const at::Tensor weights = logits[i].slice(0, 0, i + 1).softmax(0);
        for (int64_t j = i - 256; j >= 0; j -= 256) {
          sum += (j > 0 ? weights[j].item().toDouble() : 0) + weights[j + 1].item().toDouble();
        }
      }
      found.push_back(sum / 768);
    }
    return dense_attention(input);
  });
  return found;
}

TEST(Duo, HeadsThatLookBackSeeAllBlocksAndTheOthersAWindow) {
  const at::NoGradGuard no_grad;
  const Decoder model = test::small_model();
  constexpr int64_t kBlock = 16, kRows = 20, kHeads = 8;
  SparseSettings settings;
  settings.method = "duo";
  settings.block = kBlock;
  settings.seed = 5;
  settings.selection.rule = "row_budget";
  settings.selection.strength = {7 * kBlock};
  SparseAttention sparse(model, nullptr, settings);
  const DuoBudget budget(kRows, 7, kHeads, 3);
  EXPECT_EQ(budget.retrieval(), 2);
  const std::vector<double> need = plain_retrieval(model, 5);
  const Sequences sequences{{kRows * kBlock - 3}, {kRows * kBlock - 3}, 0};
  const at::Tensor q = test::normal({sequences.num_tokens(), 4, 16}, 3);
  const at::Tensor k = test::normal({sequences.num_tokens(), 2, 16}, 4);
  for (int layer = 0; layer < 2; ++layer) {
    const AttentionInput input{layer, sequences, {}, {}, q, k, k, 0.25, 0};
    const torch_ops::BlockLists lists = sparse.select(input, sparse.scores(input));
    for (int64_t head = 0; head < 4; ++head) {
      const auto rank = std::count_if(need.begin(), need.end(), [&](double other) {
        return other > need[static_cast<size_t>(layer * 4 + head)];
      });
      for (int64_t row = 0; row < kRows; ++row) {
        std::set<int64_t> want{row};
        const int64_t kept = budget.blocks(rank, row);
        if (kept > 1) want.insert(0);
        for (int64_t j = row; static_cast<int64_t>(want.size()) < kept; --j) want.insert(j);
        const auto begin = lists.begin[head][row].item().toLong();
        const auto count = lists.count[head][row].item().toLong();
        std::set<int64_t> got;
        for (int64_t i = 0; i < count; ++i) got.insert(lists.list[begin + i].item().toLong());
        EXPECT_EQ(got, want) << layer << " " << head << " " << row;
      }
    }
  }
}

// Layers that a window keeps dense have no part in the budget.
TEST(Duo, OnlyLayersThatChooseShareTheBlocks) {
  const at::NoGradGuard no_grad;
  nlohmann::json config = test::small_config();
  config["model_type"] = "mistral";
  config["architectures"] = {"MistralForCausalLM"};
  config["sliding_window"] = 200;
  config["layer_types"] = {"full_attention", "sliding_attention"};
  const Decoder model = test::small_model(config);
  SparseSettings settings;
  settings.method = "duo";
  settings.block = 16;
  settings.selection.rule = "row_budget";
  settings.selection.strength = {7 * 16};
  SparseAttention sparse(model, nullptr, settings);
  const auto kept = [&](int64_t length, int num_layers) {
    const Sequences sequences{{length}, {length}, 0};
    const at::Tensor q = test::normal({length, 4, 16}, 3), k = test::normal({length, 2, 16}, 4);
    int64_t blocks = 0;
    for (int layer = 0; layer < num_layers; ++layer) {
      const AttentionInput input{layer, sequences, {}, {}, q, k, k, 0.25, 0};
      blocks += sparse.select(input, {}).count.sum().item().toLong();
    }
    return blocks;
  };
  EXPECT_EQ(kept(200, 2), 2 * 4 * (7 * 13 - 21));
  EXPECT_EQ(kept(320, 1), 4 * (7 * 20 - 21));
}

}  // namespace
}  // namespace seer::models
