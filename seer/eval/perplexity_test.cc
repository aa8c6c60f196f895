#include "seer/eval/perplexity_table.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "seer/base/error.h"
#include "seer/eval/pass.h"
#include "seer/eval/testing/identity_model.h"

namespace seer::eval {
namespace {

TEST(MeanNll, IsTheCrossEntropyOfTheNextToken) {
  at::manual_seed(1);
  const models::Decoder model = test::identity_model(11);
  // More rows than one piece of logits.
  const int64_t length = 1500;
  const at::Tensor hidden = at::randn({length, 11}), ids = at::randint(11, {length}, at::kLong);
  const double expected =
      at::cross_entropy_loss(hidden.narrow(0, 0, length - 1), ids.narrow(0, 1, length - 1))
          .item<double>();
  EXPECT_NEAR(mean_nll(model, hidden, ids), expected, 1e-5);
}

TEST(Median, OfTwoPassesIsTheFaster) {
  const auto of = [](const std::vector<double>& times) {
    std::vector<Pass> passes(times.size());
    for (size_t i = 0; i < times.size(); ++i) passes[i].attention_ms = times[i];
    return median(passes, &Pass::attention_ms);
  };
  EXPECT_EQ(of({}), 0);
  EXPECT_EQ(of({7}), 7);
  EXPECT_EQ(of({100, 7}), 7);
  EXPECT_EQ(of({100, 8, 7}), 8);
  EXPECT_EQ(of({100, 9, 7, 8}), 8);
}

Row row_of(const std::string& model, const std::string& method, double density,
           const std::vector<double>& nll) {
  Row row;
  row.subject.model = model;
  row.method = method;
  if (method != "dense") row.setting = {"nz_ratio", density};
  row.density = density;
  row.length = 1024;
  row.nll = nll;
  row.documents = static_cast<int64_t>(nll.size());
  double sum = 0;
  for (const double each : nll) sum += each;
  row.perplexity = std::exp(sum / static_cast<double>(nll.size()));
  return row;
}

TEST(Table, ShowsRowsBesideDense) {
  const Row dense = row_of("", "dense", 1, {std::log(10)});
  Row sparse = row_of("", "seer", 0.1, {std::log(11)});
  sparse.density = 0.0987;
  Method by_gates{.dense = false, .sparse = {}};
  by_gates.sparse.selection.strength = {0.1};
  RowLines lines({{.dense = true, .sparse = {}}, by_gates}, {1024});
  std::string table = lines.head();
  table += lines.line(dense);  // before the next: it is what that one is compared with
  table += lines.line(sparse);
  EXPECT_THAT(table, testing::HasSubstr("x1.1000"));
  EXPECT_THAT(table, testing::HasSubstr("sparsity 0.9"));
  EXPECT_THAT(table, testing::HasSubstr("0.099"));
  EXPECT_THAT(table, testing::Not(testing::HasSubstr("model")));
  sparse.layer_density = {0.25, std::nan("")};
  auto json = to_json({sparse, dense});  // in any order
  EXPECT_EQ(json[0]["sparsity"], 0.9);
  EXPECT_EQ(json[0]["vs_dense"], 1.1);
  EXPECT_EQ(json[0]["density_by_layer"], nlohmann::json::parse("[0.25, null]"));
  EXPECT_FALSE(json[0].contains("vs_dense_error") || json[0].contains("excess"));
  EXPECT_EQ(json[1]["sparsity"], 0.0);
  sparse.setting.rule = "threshold";
  EXPECT_TRUE(to_json({sparse})[0]["sparsity"].is_null());
}

TEST(Table, ComparesModelsDocumentByDocument) {
  const Row dense = row_of("yarn", "dense", 1, {1, 2, 3}),
            after = row_of("yarn", "seer", 0.1, {1.1, 2.2, 3.3}),
            other = row_of("yarn", "seer", 0.5, {1.1, 2.1, 3.1});
  Row joint = row_of("joint", "seer", 0.1, {1.0, 2.1, 3.2});
  joint.subject.trained = {"nz_ratio", 0.1};
  const std::vector<Row> rows{dense, after, other, row_of("joint", "dense", 1, {1, 2, 3}), joint};
  // Differences 0, .1, .2: mean .1, standard deviation .1.
  const Beside with = beside(joint, rows);
  EXPECT_NEAR(with.ratio, std::exp(0.1), 1e-12);
  EXPECT_NEAR(with.error, std::exp(0.1) * 0.1 / std::sqrt(3.0), 1e-12);
  EXPECT_NEAR(with.excess, std::expm1(0.1) / std::expm1(0.2), 1e-12);
  EXPECT_TRUE(std::isnan(beside(after, rows).excess) && std::isnan(beside(rows[3], rows).excess));
  // A row that was cut short is compared on its own documents.
  const Beside cut = beside(row_of("joint", "seer", 0.5, {1.05}), rows);
  EXPECT_NEAR(cut.ratio, std::exp(0.05), 1e-12);
  EXPECT_NEAR(cut.excess, std::expm1(0.05) / std::expm1(0.1), 1e-12);
  EXPECT_TRUE(std::isnan(cut.error));
  // With lookup heads like is compared with like, as far as it was measured.
  Row heads = after, heads_left_out = other, joint_heads = joint;
  heads.subject.lookups = heads_left_out.subject.lookups = joint_heads.subject.lookups = true;
  heads_left_out.method = "gate";
  heads_left_out.setting = joint.setting;
  heads_left_out.nll = {1.1, 2.1, 3.1};
  const std::vector<Row> both{dense, heads, heads_left_out, joint, joint_heads};
  EXPECT_NEAR(beside(joint, both).excess, 1, 1e-12);
  EXPECT_NEAR(beside(joint_heads, both).excess, with.excess, 1e-12);
  EXPECT_TRUE(std::isnan(beside(joint, {dense, heads}).excess));
  EXPECT_TRUE(std::isnan(beside(joint_heads, {dense, after, heads_left_out}).excess));
  // Gates without an excess leave nothing to take a share of.
  EXPECT_TRUE(std::isnan(beside(joint, {dense, row_of("yarn", "seer", 0.1, {1, 2, 3})}).excess));
  EXPECT_TRUE(std::isnan(beside(joint, {after, joint}).ratio));

  const auto json = to_json(rows)[4];
  EXPECT_EQ(json["model"], "joint");
  EXPECT_EQ(json["trained_sparsity"], 0.9);
  EXPECT_NEAR(json["excess"], with.excess, 1e-6);
  RowLines lines({}, {1024}, {dense.subject, joint.subject});
  EXPECT_THAT(lines.head(), testing::HasSubstr("trained at"));
  lines.line(dense);
  lines.line(after);
  EXPECT_THAT(lines.line(joint),
              testing::ContainsRegex("joint +sparsity 0.9 +seer .* x1.1052 +0.0638 +0.48 "));
}

}  // namespace
}  // namespace seer::eval
