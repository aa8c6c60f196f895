#include "seer/eval/perplexity.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "seer/base/error.h"

namespace seer::eval {
namespace {

// A model whose logits are known: the embedding is the identity, so that hidden states are logits.
models::Decoder identity_model(int64_t vocabulary) {
  io::ModelConfig config;
  config.vocab_size = vocabulary;
  config.hidden_size = static_cast<int>(vocabulary);
  models::ModelWeights weights;
  weights.embedding = at::eye(vocabulary);
  weights.head = weights.embedding;
  weights.norm = at::ones({vocabulary});
  return models::Decoder(config, weights);
}

TEST(MeanNll, IsTheCrossEntropyOfTheNextToken) {
  at::manual_seed(1);
  const models::Decoder model = identity_model(11);
  // More rows than one piece of logits.
  const int64_t length = 1500;
  const at::Tensor hidden = at::randn({length, 11}), ids = at::randint(11, {length}, at::kLong);
  const double expected =
      at::cross_entropy_loss(hidden.narrow(0, 0, length - 1), ids.narrow(0, 1, length - 1))
          .item<double>();
  EXPECT_NEAR(mean_nll(model, hidden, ids), expected, 1e-5);
}

TEST(Table, ShowsRowsBesideDense) {
  Row dense, sparse;
  dense.method = "dense";
  dense.length = sparse.length = 1024;
  dense.perplexity = 10;
  sparse.method = "seer";
  sparse.setting = {"nz_ratio", 0.1};
  sparse.perplexity = 11;
  sparse.density = 0.0987;
  sparse.length = 1024;
  Method by_gates{.dense = false, .sparse = {}};
  by_gates.sparse.selection.strength = {0.1};
  RowLines lines({{.dense = true, .sparse = {}}, by_gates}, {1024});
  std::string table = lines.head();
  table += lines.line(dense);  // before the next: it is what that one is compared with
  table += lines.line(sparse);
  EXPECT_THAT(table, testing::HasSubstr("x1.1000"));
  EXPECT_THAT(table, testing::HasSubstr("sparsity 0.9"));
  EXPECT_THAT(table, testing::HasSubstr("0.099"));
  EXPECT_EQ(to_json(sparse)["sparsity"], 0.9);
  EXPECT_EQ(to_json(dense)["sparsity"], 0.0);
  sparse.setting.rule = "threshold";
  EXPECT_TRUE(to_json(sparse)["sparsity"].is_null());
}

}  // namespace
}  // namespace seer::eval
