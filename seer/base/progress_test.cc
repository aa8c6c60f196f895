#include "seer/base/progress.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <string>

namespace seer {
namespace {

std::string text_of(std::FILE* file) {
  std::string text;
  std::rewind(file);
  for (int c = std::fgetc(file); c != EOF; c = std::fgetc(file))
    text.push_back(static_cast<char>(c));
  return text;
}

TEST(Progress, DurationsAndCountsAreShort) {
  EXPECT_EQ(duration_text(0.2), "0 s");
  EXPECT_EQ(duration_text(59.6), "1 min 00 s");
  EXPECT_EQ(duration_text(245), "4 min 05 s");
  EXPECT_EQ(duration_text(7650), "2 h 07 min");
  EXPECT_EQ(duration_text(17 * 86400 + 3 * 3600 + 59), "17 d 03 h");
  EXPECT_EQ(count_text(950), "950");
  EXPECT_EQ(count_text(12345), "12.3 k");
  EXPECT_EQ(count_text(999600), "1.00 M");
  EXPECT_EQ(count_text(1058000), "1.06 M");
}

TEST(Progress, LogGetsWholeLinesAndAlwaysTheLast) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  {
    Progress progress("work", 3, 0, true, file);
    progress.update(1, "loss 2");
    progress.note("careful");
    progress.update(3, "loss 1");
  }
  const std::string text = text_of(file);
  EXPECT_EQ(text, "careful\nwork: 3/3, loss 1, 0 s\n");
  std::fclose(file);
}

TEST(Progress, TextsFromOutsideAreOneLineWithoutControlCharacters) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  {
    Progress progress("read \x1b[31mx", 1, 0, true, file);
    progress.note("a\nb\r");
    progress.update(1);
  }
  EXPECT_EQ(text_of(file), "a\\nb\\r\nread \\u001b[31mx: 1/1, 0 s\n");
  std::fclose(file);
}

TEST(Progress, HiddenPrintsNothing) {
  std::FILE* file = std::tmpfile();
  ASSERT_NE(file, nullptr);
  {
    Progress progress("work", 3, 0, false, file);
    progress.advance();
    progress.note("careful");
  }
  EXPECT_EQ(text_of(file), "");
  std::fclose(file);
}

}  // namespace
}  // namespace seer
