// Regular expressions of tokenizer.json: where PCRE2 would read them in another way than Oniguruma.
#include "seer/io/tokenizer/regex.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "seer/base/error.h"

namespace seer::io {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;

std::vector<std::string> matches(const std::string& pattern, const std::string& text) {
  std::vector<std::string> out;
  Regex(pattern, "test").for_each(text, [&](const Match& match) {
    out.push_back(text.substr(match.begin, match.end - match.begin));
  });
  return out;
}

TEST(Regex, WhiteSpaceIsUnicodes) {
  EXPECT_THAT(matches(R"(\s+)", "a\u00A0\u3000b\u180Ec\u200Bd\u0085"),
              ElementsAre("\u00A0\u3000", "\u0085"));
  EXPECT_THAT(matches(R"([^\S\n]+)", "a \n\u2003b"), ElementsAre(" ", "\u2003"));
}

TEST(Regex, RecentLettersCount) {
  EXPECT_THAT(matches(R"(\p{L}+)", "a\U00031350b 1"), ElementsAre("a\U00031350b"));
  EXPECT_THAT(matches(R"([^\p{L}\s]+)", "a\U00031350 1"), ElementsAre("1"));
  EXPECT_THAT(matches(R"(\P{L}+)", "a\U00031350 1"), ElementsAre(" 1"));
  EXPECT_THAT(matches(R"(\d)", "\U00010D40"), ElementsAre("\U00010D40"));
}

TEST(Regex, Intervals) {
  EXPECT_THAT(matches(R"(\p{N}{1,3}+)", "1234567 1"), ElementsAre("1234567", "1"));
  EXPECT_THAT(matches("(?:a(b)){2}+", "ababababab"), ElementsAre("abababab"));
  EXPECT_THAT(matches("[ab]{,2}c", "ababcc"), ElementsAre("abc", "c"));
  EXPECT_THAT(matches("a{2}|b{1,}|c{x}", "aaabbc{x}"), ElementsAre("aa", "bb", "c{x}"));
  EXPECT_THAT(matches("a?+a|b++", "abb"), ElementsAre("bb"));
}

TEST(Regex, LinesAnchor) {
  EXPECT_THAT(matches("^b$", "a\nb\nc"), ElementsAre("b"));
}

TEST(Regex, EmptyMatches) {
  EXPECT_THAT(matches("x*", "\u00E9xx"), ElementsAre("", "xx"));
  EXPECT_THAT(matches("(?=a)", "baa"), ElementsAre("", ""));
}

TEST(Regex, LiteralTakesSignsAsTheyAre) {
  const auto found = Regex::literal(".*").find("a.*b", 0);
  ASSERT_TRUE(found);
  EXPECT_EQ(found->begin, 1u);
  EXPECT_FALSE(Regex::literal("ab").find("aab", 2));
}

TEST(Regex, WhatMeansSomethingElseIsRefused) {
  for (const char* pattern :
       {R"(\bx)", R"(\h)", R"([a[bc]])", R"([a&&b])", R"((?m:x))", R"((?P<n>x))", R"(\X)", R"(\K)",
        R"(\pL)", R"(a\)", "a{2}?", "(?i)a", "[a", "[]a]", R"(\p{Nothing})", "("}) {
    EXPECT_THROW(Regex(pattern, "test"), Error) << pattern;
  }
}

TEST(Regex, RunsForEverOnNoText) {
  const std::string text(200, 'a');
  EXPECT_THROW(Regex("(?:a+)+[bc]", "test").find(text, 0), Error);
}

TEST(Regex, LongRunsOfOneKind) {
  const std::string text = std::string(5'000'000, ' ') + "x";
  EXPECT_THAT(matches(R"(\s+(?!\S)|\s+)", text), ElementsAre(std::string(4'999'999, ' '), " "));
}

}  // namespace
}  // namespace seer::io
