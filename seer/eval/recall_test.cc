#include "seer/eval/recall.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "seer/base/error.h"
#include "seer/eval/recall_picture.h"
#include "seer/models/testing/test_model.h"

namespace seer::eval {
namespace {

constexpr int kRecallBlock = 16;

RecallMethod method_of(const std::string& name, double strength,
                       const std::string& rule = "nz_ratio", const models::Gates* gates = nullptr) {
  models::SparseSettings sparse{.method = name, .selection = {}, .block = kRecallBlock, .seed = 5};
  sparse.selection.rule = rule;
  sparse.selection.strength = {strength};
  return {sparse, gates, gates ? "some" : ""};
}

Windows some_windows(int64_t length, uint64_t count) {
  Windows windows{.length = length, .ids = {}};
  for (uint64_t w = 0; w < count; ++w) {
    windows.ids.push_back(models::test::some_ids(length, 3 + w));
  }
  return windows;
}

// The definition: softmax of every layer and head with a full matrix, in f64; the mass where
// `keeps(query block, key block)`, mean over queries and windows.
template <class Keeps>
at::Tensor plain_recall(const models::Decoder& model, const Windows& windows, const Keeps& keeps) {
  const at::NoGradGuard no_grad;
  const auto& config = model.config();
  const int64_t t = windows.length;
  at::Tensor keep = at::zeros({t, t}, at::kDouble);
  for (int64_t i = 0; i < t; ++i) {
    for (int64_t j = 0; j <= i; ++j) keep[i][j] = keeps(i / kRecallBlock, j / kRecallBlock) ? 1 : 0;
  }
  at::Tensor sum = at::zeros({config.num_layers, config.num_heads}, at::kDouble);
  for (const auto& window : windows.ids) {
    const models::Sequences sequences{.q_lens = {t}, .k_lens = {t}, .prompt_len = 0};
    model.hidden(ids_of(window, at::kCPU), sequences, [&](const models::AttentionInput& in) {
      const at::Tensor q = in.q.to(at::kDouble).transpose(0, 1);
      const at::Tensor k = in.k.to(at::kDouble).repeat_interleave(2, 1).permute({1, 2, 0});
      const at::Tensor hidden = at::ones({t, t}, at::kBool).triu(1);
      const at::Tensor p = (q.matmul(k) * in.scale).masked_fill(hidden, -INFINITY).softmax(-1);
      sum[in.layer] += (p * keep).sum(-1).mean(-1);
      return models::dense_attention(in);
    });
  }
  return sum / static_cast<int64_t>(windows.ids.size());
}

TEST(Recall, IsTheMassOfAPlainSoftmax) {
  const models::Decoder model = models::test::small_model();
  const Windows windows = some_windows(100, 2);  // the last block is not full
  // Two blocks a row of streaming: the first and the row's own.
  const auto rows = measure_recall(model, {method_of("streaming", 32, "row_budget")}, windows);
  ASSERT_EQ(rows.size(), 1u);
  const at::Tensor want = plain_recall(
      model, windows, [](int64_t row, int64_t block) { return block == 0 || block == row; });
  EXPECT_LE(models::test::largest_difference(rows[0].recall, want), 1e-5);
  EXPECT_LT(want.max().item<double>(), 0.95);  // much is left out
  EXPECT_EQ(rows[0].method, "streaming");
  EXPECT_EQ(rows[0].length, 100);
  EXPECT_EQ(rows[0].documents, 2);
  EXPECT_NEAR(rows[0].density, (1 + 6 * 2) / 28.0, 1e-9);
  EXPECT_NEAR(mean_recall(rows[0]), want.mean().item<double>(), 1e-5);
  const HeadRecall worst = worst_head(rows[0]);
  EXPECT_NEAR(worst.recall, want.min().item<double>(), 1e-5);
  EXPECT_NEAR(want[worst.layer][worst.head].item<double>(), worst.recall, 1e-5);
}

TEST(Recall, OfEverythingIsOne) {
  const models::Decoder model = models::test::small_model();
  const models::Gates gates = models::Gates::create({.block_size = kRecallBlock}, model, 2);
  std::vector<RecallMethod> methods;
  for (const char* name : {"seer", "untrained", "random", "streaming", "oracle"}) {
    methods.push_back(method_of(name, 1, "nz_ratio", &gates));
  }
  for (const RecallRow& row : measure_recall(model, methods, some_windows(90, 2))) {
    EXPECT_LE((row.recall - 1).abs().max().item<double>(), 1e-5) << row.method;
    EXPECT_EQ(row.density, 1) << row.method;
  }
}

TEST(Recall, OracleFindsMoreThanRandomAndMoreBlocksMore) {
  const models::Decoder model = models::test::small_model();
  const auto rows = measure_recall(model,
                                   {method_of("oracle", 0.2), method_of("oracle", 0.5),
                                    method_of("random", 0.2), method_of("random", 0.5)},
                                   some_windows(320, 1));
  EXPECT_NEAR(rows[0].density, rows[2].density, 0.01);  // the diagonal is kept beside them
  EXPECT_TRUE((rows[0].recall >= rows[2].recall).all().item<bool>());
  EXPECT_GT(mean_recall(rows[0]), mean_recall(rows[2]) + 0.1);
  EXPECT_TRUE((rows[1].recall >= rows[0].recall).all().item<bool>());
  EXPECT_TRUE((rows[3].recall >= rows[2].recall).all().item<bool>());
  EXPECT_LE(rows[1].recall.max().item<double>(), 1 + 1e-5);
}

// Methods that share their scores with the one before give what they give alone.
TEST(Recall, OfSeveralMethodsIsThatOfEach) {
  const models::Decoder model = models::test::small_model();
  const models::Gates a = models::Gates::create({.block_size = kRecallBlock}, model, 2);
  const models::Gates b = models::Gates::create({.block_size = kRecallBlock}, model, 3);
  const std::vector<RecallMethod> methods = {
      method_of("seer", 0.3, "nz_ratio", &a), method_of("seer", 0.6, "nz_ratio", &a),
      method_of("seer", 0.3, "nz_ratio", &b), method_of("untrained", 0.3, "nz_ratio", &b),
      method_of("oracle", 0.3)};
  const Windows windows = some_windows(160, 1);
  const auto together = measure_recall(model, methods, windows);
  for (size_t m = 0; m < methods.size(); ++m) {
    const auto alone = measure_recall(model, {methods[m]}, windows);
    EXPECT_TRUE(at::equal(together[m].recall, alone[0].recall)) << m;
    EXPECT_EQ(together[m].density, alone[0].density) << m;
    if (m > 0) EXPECT_FALSE(at::equal(together[m].recall, together[m - 1].recall)) << m;
  }
}

nlohmann::json windowed_config(std::vector<std::string> types) {
  auto json = models::test::small_config();
  json["model_type"] = "qwen2";
  json["architectures"] = {"Qwen2ForCausalLM"};
  json["sliding_window"] = 32;
  json["use_sliding_window"] = true;
  json["layer_types"] = std::move(types);
  return json;
}

TEST(Recall, LayersWithASlidingWindowAreNotMeasured) {
  const auto model =
      models::test::small_model(windowed_config({"sliding_attention", "full_attention"}));
  const auto rows = measure_recall(model, {method_of("random", 0.3)}, some_windows(160, 2));
  EXPECT_TRUE(rows[0].recall[0].isnan().all().item<bool>());
  EXPECT_FALSE(rows[0].recall[1].isnan().any().item<bool>());
  EXPECT_EQ(worst_head(rows[0]).layer, 1);
  EXPECT_NEAR(mean_recall(rows[0]), rows[0].recall[1].mean().item<double>(), 1e-12);
  const auto json = to_json(rows)[0];
  EXPECT_TRUE(json["recall"][0][0].is_null());
  EXPECT_TRUE(json["recall"][1][3].is_number());

  const auto windowed =
      models::test::small_model(windowed_config({"sliding_attention", "sliding_attention"}));
  EXPECT_THROW(measure_recall(windowed, {method_of("random", 0.3)}, some_windows(160, 1)), Error);
}

RecallRow row_of(const std::string& method, const std::string& gates, double strength,
                 std::vector<double> recall, int64_t heads) {
  RecallRow row;
  row.method = method;
  row.gates = gates;
  row.setting = {"nz_ratio", strength};
  row.length = 1024;
  row.documents = 2;
  row.density = 0.0987;
  row.recall = at::tensor(recall, at::kDouble).view({-1, heads});
  return row;
}

TEST(Recall, TableAndJson) {
  const std::vector<RecallRow> rows = {row_of("seer", "cpu", 0.1, {0.9, 0.8, 1.0, 0.701}, 2),
                                       row_of("random", "", 0.1, {0.4, 0.3, 0.2, 0.1}, 2)};
  const std::string table = to_table(rows);
  EXPECT_THAT(table, testing::ContainsRegex(
                         "seer +cpu +sparsity 0.9 +0.099 +85.0% +70.1% +layer 1 head 1"));
  const auto json = to_json(rows);
  EXPECT_EQ(json[0]["gates"], "cpu");
  EXPECT_TRUE(json[1]["gates"].is_null());
  EXPECT_EQ(json[0]["sparsity"], 0.9);
  EXPECT_EQ(json[0]["recall"], nlohmann::json({{0.9, 0.8}, {1.0, 0.701}}));
  EXPECT_EQ(json[0]["worst"]["layer"], 1);
  EXPECT_NEAR(json[1]["mean_recall"].get<double>(), 0.25, 1e-12);
}

// Pixels of one colour.
int64_t count_of(const report::Image& image, report::Color color) {
  int64_t count = 0;
  for (int y = 0; y < image.height(); ++y) {
    for (int x = 0; x < image.width(); ++x) count += image.at(x, y) == color;
  }
  return count;
}

TEST(RecallPicture, HasACellForEachHead) {
  // Small cells, without numbers: 64 layers of 2 heads. The scale goes from 50 % to 100 %.
  std::vector<double> recall(128, 1.0);
  for (int i = 0; i < 10; ++i) recall[i] = 0.75;
  recall[64] = 0.5;
  for (int i = 100; i < 102; ++i) recall[i] = std::nan("");
  const auto image = recall_picture({row_of("seer", "a_b", 0.1, recall, 2)}, "recall");
  const int64_t cell = 6 * 6;
  // The legend's bar has none of these colours; its square of grey has 18 x 18 pixels.
  EXPECT_EQ(count_of(image, report::heat(0.5)), 10 * cell);
  EXPECT_EQ(count_of(image, report::heat(1)), (128 - 10 - 1 - 2) * cell);
  EXPECT_EQ(count_of(image, report::heat(std::nan(""))), 2 * cell + 18 * 18);
}

TEST(RecallPicture, PutsMethodsSideBySideAndSettingsBelowOneAnother) {
  const std::vector<double> recall = {0.9, 0.8, 1.0, 0.7};
  const auto of = [&](std::vector<std::pair<std::string, double>> wanted) {
    std::vector<RecallRow> rows;
    for (const auto& [gates, strength] : wanted) {
      rows.push_back(row_of("seer", gates, strength, recall, 2));
    }
    return recall_picture(rows, "recall");
  };
  const auto one = of({{"a", 0.1}});
  const auto beside = of({{"a", 0.1}, {"b", 0.1}, {"c", 0.1}, {"d", 0.1}});
  const auto below = of({{"a", 0.5}, {"a", 0.1}});
  const auto both = of({{"a", 0.5},
                        {"a", 0.1},
                        {"b", 0.5},
                        {"b", 0.1},
                        {"c", 0.5},
                        {"c", 0.1},
                        {"d", 0.5},
                        {"d", 0.1}});
  EXPECT_GT(beside.width(), one.width());
  EXPECT_EQ(beside.height(), one.height());
  EXPECT_GT(below.height(), one.height());
  EXPECT_EQ(below.width(), one.width());
  EXPECT_EQ(both.width(), beside.width());
  EXPECT_EQ(both.height(), below.height());
}

}  // namespace
}  // namespace seer::eval
