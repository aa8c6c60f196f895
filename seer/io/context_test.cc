#include "seer/io/context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace seer::io
