#include "seer/io/context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "seer/base/error.h"

namespace seer::io {
namespace {

TEST(Context, IsWhatTheFileSaysOrWhatRopeStretchesItTo) {
  ModelConfig config;
  config.max_position = 4096;
  EXPECT_EQ(context_length(config), 4096);
  config.rope.type = "linear";
  config.rope.factor = 4;
  EXPECT_EQ(context_length(config), 16384);
  config.rope.type = "yarn";
  config.rope.original_max_position = 2048;
  EXPECT_EQ(context_length(config), 8192);
  config.rope.factor = 2;  // the file has the stretched length
  EXPECT_EQ(context_length(config), 4096);
  config.rope.type = "llama3";
  config.rope.factor = 8;
  EXPECT_EQ(context_length(config), 4096);
}

TEST(Context, WarnsBeyondItOnly) {
  ModelConfig config;
  config.max_position = 4096;
  EXPECT_EQ(context_warning(config, 4096), "");
  EXPECT_THAT(context_warning(config, 4097),
              testing::AllOf(testing::HasSubstr("4097 tokens"), testing::HasSubstr("the 4096")));
  config.max_position = 0;  // not known
  EXPECT_EQ(context_warning(config, 1 << 30), "");
}

ModelConfig model_of(const nlohmann::json& fields) {
  nlohmann::json json{{"model_type", "llama"},          {"hidden_size", 64},
                      {"intermediate_size", 96},        {"num_hidden_layers", 2},
                      {"num_attention_heads", 4},       {"vocab_size", 120},
                      {"max_position_embeddings", 4096}};
  json.update(fields);
  return ModelConfig::from_json(json, "test");
}

TEST(Stretched, SaysTheSameToBothVersionsOfTransformers) {
  // Old and new files; lengths whose product with the factor is not whole.
  for (const nlohmann::json& fields :
       {nlohmann::json{{"rope_theta", 5e5}},
        nlohmann::json{{"rope_parameters", {{"rope_type", "default"}, {"rope_theta", 5e5}}}}}) {
    for (const double factor : {4.0, 1.3}) {
      const nlohmann::json out = stretched_config(model_of(fields), factor);
      const auto length = std::llround(4096 * factor);
      EXPECT_EQ(out["max_position_embeddings"], length);
      EXPECT_EQ(out["rope_theta"], 5e5);
      EXPECT_FALSE(out.contains("rope_parameters"));
      EXPECT_EQ(out["rope_scaling"], (nlohmann::json{{"rope_type", "yarn"},
                                                     {"factor", static_cast<double>(length) / 4096},
                                                     {"original_max_position_embeddings", 4096}}));
      EXPECT_EQ(context_length(ModelConfig::from_json(out, "test")), length);
    }
  }
}

TEST(Stretched, StartsFromTheOriginalLength) {
  const auto once = stretched_config(model_of(nlohmann::json::object()), 2);
  const auto again = stretched_config(ModelConfig::from_json(once, "test"), 8);
  EXPECT_EQ(again, stretched_config(model_of(nlohmann::json::object()), 8));
  EXPECT_EQ(stretched_config(ModelConfig::from_json(once, "test"), 1), once);
}

TEST(Stretched, OtherRopeIsRefused) {
  const auto linear = model_of({{"rope_scaling", {{"rope_type", "linear"}, {"factor", 2}}}});
  EXPECT_NO_THROW(stretched_config(linear, 1));
  try {
    stretched_config(linear, 2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("RoPE of type linear"));
  }
  try {
    stretched_config(model_of({{"model_type", "phi3"}}), 2);
    FAIL();
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), testing::HasSubstr("knows longrope alone"));
  }
}

}  // namespace
}  // namespace seer::io
