// RoPE tables against those of transformers 4.51.

#include <gtest/gtest.h>

#include <cmath>

#include "seer/base/rope_table.h"
#include "seer/io/testing/golden.h"

namespace seer {
namespace {

void check(const io::Golden& golden) {
  std::vector<int64_t> positions;
  for (const int32_t p : golden.ints("positions")) positions.push_back(p);
  for (const std::string& name : golden.cases("inv_freq")) {
    SCOPED_TRACE(name);
    RopeConfig config;
    config.type = golden.text(name + ".rope_type");
    config.theta = golden.real(name + ".rope_theta", 0);
    config.rotary_dim = golden.number(name + ".head_dim");
    config.max_position = golden.number(name + ".max_position_embeddings");
    const auto given = [&](const char* key) { return golden.real(name + "." + key, 0); };
    config.original_max_position = static_cast<int64_t>(given("original_max_position_embeddings"));
    config.factor = given("factor");
    config.attention_factor = given("attention_factor");
    config.beta_fast = given("beta_fast");
    config.beta_slow = given("beta_slow");
    config.low_freq_factor = given("low_freq_factor");
    config.high_freq_factor = given("high_freq_factor");

    RopeFrequencies own = rope_frequencies(config, positions.back() + 1);
    const auto inv_freq = golden.floats(name + "/inv_freq");
    const float factor = golden.floats(name + "/attention_factor")[0];
    EXPECT_NEAR(own.attention_factor, factor, 1e-6);
    ASSERT_EQ(own.inv_freq.size(), inv_freq.size());
    const double limit = config.type == "dynamic" ? 3e-6 : 1e-6;
    for (size_t i = 0; i < inv_freq.size(); ++i) {
      EXPECT_NEAR(own.inv_freq[i] / inv_freq[i], 1, limit) << "feature " << i;
    }

    const auto cos = golden.floats(name + "/cos"), sin = golden.floats(name + "/sin");
    const RopeTable table = rope_table({inv_freq, factor}, positions);
    const RopeTable own_table = rope_table(own, positions);
    ASSERT_EQ(table.cos.size(), cos.size());
    for (size_t i = 0; i < cos.size(); ++i) {
      const double angle = positions[i / inv_freq.size()] * inv_freq[i % inv_freq.size()];
      const double loose = 2e-6 + limit * angle;
      EXPECT_NEAR(table.cos[i], cos[i], 1e-6) << i;
      EXPECT_NEAR(table.sin[i], sin[i], 1e-6) << i;
      EXPECT_NEAR(own_table.cos[i], cos[i], loose) << i;
      EXPECT_NEAR(own_table.sin[i], sin[i], loose) << i;
    }
  }
}

TEST(RopeTable, Golden) {
  for (const io::Golden& golden : io::Golden::sets("rope")) {
    SCOPED_TRACE(golden.path());
    check(golden);
  }
}

}  // namespace
}  // namespace seer
