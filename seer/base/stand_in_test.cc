#include "seer/base/stand_in.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace seer {
namespace {

using testing::HasSubstr;

TEST(StandIn, IsNamed) {
  EXPECT_THAT(stand_in("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
              HasSubstr("git lfs pull"));
  for (const char* page : {"<!DOCTYPE html><html>", "\n <HTML lang=en>", "\xEF\xBB\xBF<html>",
                           "<?xml version='1.0'?><Error>"}) {
    EXPECT_THAT(stand_in(page), HasSubstr("web page")) << page;
    EXPECT_EQ(lfs_pointer(page), "") << page;
  }
  for (const char* other : {"", "{}", "version 2", "<s>", "<htm", "text <html>"}) {
    EXPECT_EQ(stand_in(other), "") << other;
  }
}

}  // namespace
}  // namespace seer
