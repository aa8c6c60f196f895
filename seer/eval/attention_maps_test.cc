#include "seer/eval/attention_maps.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "seer/eval/windows.h"
#include "seer/models/testing/test_model.h"

namespace seer::eval {
namespace {

// Layers of the rows of a model of five layers and four heads, on 200 tokens in blocks of 16.
std::vector<int> layers_shown(int64_t most_bytes) {
  nlohmann::json config = models::test::small_config();
  config["num_hidden_layers"] = 5;
  // Of the second layer a window hides keys, so it chooses no blocks.
  config["model_type"] = "qwen2";
  config["architectures"] = {"Qwen2ForCausalLM"};
  config["use_sliding_window"] = true;
  config["sliding_window"] = 32;
  config["max_window_layers"] = 1;
  config["layer_types"] = {"full_attention", "sliding_attention", "full_attention",
                           "full_attention", "full_attention"};
  const models::Decoder model = models::test::small_model(config);
  io::GateConfig form;
  form.block_size = 16;
  const auto gates = models::Gates::create(form, model, 7);
  const at::Tensor ids = ids_of(models::test::some_ids(200), at::kCPU);
  const auto rows = attention_rows(model, gates, ids, {.block = 16, .even = true, .form = {}},
                                   {{.rule = "nz_ratio", .strength = {0.5}}}, most_bytes);
  std::vector<int> layers;
  for (const auto& row : rows) {
    EXPECT_EQ(row["head"], layers.size() % 4);
    EXPECT_EQ(row["truth"].get<std::string>().size(), (13u * 14 / 2 + 2) / 3 * 4);
    EXPECT_EQ(row["chosen"].size(), 1u);
    layers.push_back(row["layer"]);
  }
  std::vector<int> distinct;
  for (size_t i = 0; i < layers.size(); i += 4) distinct.push_back(layers[i]);
  return distinct;
}

TEST(AttentionMaps, LayersAreLeftOutEvenlyWhereThereAreTooManyBytes) {
  EXPECT_THAT(layers_shown(kMapBytes), testing::ElementsAre(0, 2, 3, 4));
  EXPECT_THAT(layers_shown(2000), testing::ElementsAre(2, 4)) << "a layer has 776 bytes";
  EXPECT_THAT(layers_shown(1), testing::ElementsAre(4));
}

}  // namespace
}  // namespace seer::eval
