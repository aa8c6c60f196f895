// RoPE scalings that need few numbers to check, and settings that must be refused. Numbers are
// those of transformers 4.51 for 8 features and theta 10000.

#include "seer/base/rope_table.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "seer/base/error.h"

namespace seer {
namespace {

using testing::HasSubstr;

RopeConfig make(const std::string& type) {
  RopeConfig config;
  config.type = type;
  config.rotary_dim = 8;
  config.max_position = 131072;
  return config;
}

RopeConfig make_longrope() {
  RopeConfig config = make("longrope");
  config.original_max_position = 4096;
  config.short_factor = {1.0, 1.05, 1.2, 2.0};
  config.long_factor = {1.1, 3.0, 20.0, 60.0};
  return config;
}

void expect_frequencies(const RopeFrequencies& found, const std::vector<double>& want,
                        double attention_factor) {
  ASSERT_EQ(found.inv_freq.size(), want.size());
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(found.inv_freq[i] / want[i], 1, 2e-7) << i;
  EXPECT_NEAR(found.attention_factor, attention_factor, 1e-7);
}

TEST(RopeTable, LongRopeByLength) {
  const RopeConfig config = make_longrope();
  const std::vector<double> near = {1.0, 0.095238097012043, 0.00833333283662796, 0.00050000002374};
  const std::vector<double> far = {0.9090908765792847, 0.03333333507180214, 0.0005000000237487257,
                                   1.6666666851961054e-05};
  expect_frequencies(rope_frequencies(config, 4096), near, 1.1902380714238083);
  expect_frequencies(rope_frequencies(config, 4097), far, 1.1902380714238083);
}

TEST(RopeTable, LongRopeFactor) {
  RopeConfig config = make_longrope();
  config.original_max_position = 0;
  config.factor = 4;
  EXPECT_NEAR(rope_frequencies(config, 131073).attention_factor, 1.0571882797418488, 1e-7);
  EXPECT_FLOAT_EQ(rope_frequencies(config, 131072).inv_freq[3], 0.0005f);
  config.attention_factor = 1.5;
  EXPECT_EQ(rope_frequencies(config, 1).attention_factor, 1.5f);
}

// What is said or the ratio of the lengths, by the version of transformers.
TEST(RopeTable, FactorBesideTheTwoLengths) {
  RopeConfig yarn = make("yarn");
  yarn.original_max_position = yarn.max_position;
  yarn.factor = 4;
  EXPECT_EQ(rope_frequencies(yarn, 1).attention_factor, 1);
  yarn.factor_first = true;
  EXPECT_NEAR(rope_frequencies(yarn, 1).attention_factor, 1.138629436111989, 1e-7);
  yarn.factor = 0;
  yarn.original_max_position = yarn.max_position / 4;
  EXPECT_NEAR(rope_frequencies(yarn, 1).attention_factor, 1.138629436111989, 1e-7);
  RopeConfig longrope = make_longrope();
  longrope.factor = 4;
  EXPECT_NEAR(rope_frequencies(longrope, 1).attention_factor, 1.1902380714238083, 1e-7);
  longrope.factor_first = true;
  EXPECT_NEAR(rope_frequencies(longrope, 1).attention_factor,
              std::sqrt(1 + std::log(4) / std::log(4096)), 1e-7);
}

TEST(RopeTable, YarnMscale) {
  RopeConfig config = make("yarn");
  config.factor = 40;
  config.mscale = 1.0;
  config.mscale_all_dim = 0.8;
  expect_frequencies(rope_frequencies(config, 1),
                     {1.0, 0.10000000149011612, 0.009999999776482582, 0.0006750000175088644},
                     1.0569662567531275);
}

TEST(RopeTable, YarnWithoutTruncation) {
  RopeConfig config = make("yarn");
  config.factor = 4;
  config.truncate = false;
  // Ramp from feature 2.82 to 4.32 of log(131072 / (r 2 pi)) 8 / (2 log 10000), r = 32 and 1.
  const double low = 8 * std::log(131072 / (64 * M_PI)) / (2 * std::log(10000.0));
  const double high = 8 * std::log(131072 / (2 * M_PI)) / (2 * std::log(10000.0));
  const double ramp = (3 - low) / (high - low);
  ASSERT_GT(ramp, 0);
  expect_frequencies(rope_frequencies(config, 1),
                     {1.0, 0.1, 0.01, 0.001 * (1 - ramp) + 0.00025 * ramp}, 1.138629436111989);
}

TEST(RopeTable, PositionsAndFactor) {
  const RopeTable table = rope_table({{1.0f, 0.5f}, 2.0f}, {0, 3});
  EXPECT_EQ(table.cos[0], 2.0f);
  EXPECT_EQ(table.sin[1], 0.0f);
  EXPECT_NEAR(table.cos[2], 2 * std::cos(3.0), 1e-6);
  EXPECT_NEAR(table.sin[3], 2 * std::sin(1.5), 1e-6);
}

// At large positions the rounding of the angle to f32 is part of the definition.
TEST(RopeTable, AngleIsRounded) {
  const float f = 0.7498942f;
  const float angle = 131008.0f * f;
  ASSERT_NE(static_cast<double>(angle), 131008.0 * f);
  EXPECT_NEAR(rope_table({{f}, 1.0f}, {131008}).cos[0], std::cos(static_cast<double>(angle)), 1e-7);
}

TEST(RopeTable, Refused) {
  const auto error_of = [](const RopeConfig& config) -> std::string {
    try {
      rope_frequencies(config, 100);
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  const auto with = [](RopeConfig config, auto change) {
    change(config);
    return config;
  };
  const auto none = make("default");
  EXPECT_THAT(error_of(make("su")), HasSubstr("unknown type \"su\", want default"));
  EXPECT_THAT(error_of(with(none, [](auto& c) { c.rotary_dim = 7; })),
              HasSubstr("rotary_dim is 7"));
  EXPECT_THAT(error_of(with(none, [](auto& c) { c.rotary_dim = 0; })),
              HasSubstr("rotary_dim is 0"));
  EXPECT_THAT(error_of(with(none, [](auto& c) { c.theta = NAN; })), HasSubstr("rope_theta is nan"));
  EXPECT_THAT(error_of(make("linear")), HasSubstr("type linear needs factor"));
  EXPECT_THAT(error_of(make("dynamic")), HasSubstr("type dynamic needs factor"));
  EXPECT_THAT(error_of(make("yarn")), HasSubstr("type yarn needs factor"));
  EXPECT_THAT(error_of(make("llama3")), HasSubstr("type llama3 needs factor"));
  auto llama3 = make("llama3");
  llama3.factor = 8;
  llama3.low_freq_factor = llama3.high_freq_factor = 4;
  EXPECT_THAT(error_of(llama3), HasSubstr("original_max_position_embeddings"));
  llama3.original_max_position = 8192;
  EXPECT_THAT(error_of(llama3), HasSubstr("want the first above the second"));
  EXPECT_THAT(error_of(make("longrope")), HasSubstr("short_factor has 0 numbers, want 4"));
  EXPECT_THAT(error_of(with(make_longrope(), [](auto& c) { c.short_factor[1] = 0; })),
              HasSubstr("needs short_factor above 0 and got 0"));
  EXPECT_THAT(error_of(with(make_longrope(), [](auto& c) { c.original_max_position = 0; })),
              HasSubstr("needs factor"));
}

}  // namespace
}  // namespace seer
