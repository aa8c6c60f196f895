#include "seer/base/shown.h"

#include <gtest/gtest.h>

namespace seer {
namespace {

TEST(Shown, EscapesWhatATerminalWouldObey) {
  EXPECT_EQ(shown("plain \xE4\xB8\xAD"), "\"plain \xE4\xB8\xAD\"");
  EXPECT_EQ(shown("a\nb\tc\x1b[31m\x7f"), "\"a\\nb\\tc\\u001b[31m\\u007f\"");
  EXPECT_EQ(shown("say \"\\\""), "\"say \\\"\\\\\\\"\"");
  EXPECT_EQ(shown("\xC2\x9B"
                  "2J \xE2\x80\xAE \xEF\xBB\xBF"),
            "\"\\u009b2J \\u202e \\ufeff\"");
  EXPECT_EQ(shown("\xFF\xE4\xB8z"), "\"\\xff\\xe4\\xb8z\"");
  EXPECT_EQ(shown(std::string_view("\0x", 2)), "\"\\u0000x\"");
}

TEST(Shown, IsCutAtAWholeCharacter) {
  EXPECT_EQ(shown("abcdefgh", 3), "\"abc...\"");
  EXPECT_EQ(shown("abc", 3), "\"abc\"");
  EXPECT_EQ(shown("ab\xE4\xB8\xAD"
                  "cd",
                  3),
            "\"ab\xE4\xB8\xAD...\"");
  EXPECT_LT(shown(std::string(100000, '\n')).size(), 80u);
}

TEST(OneLine, KeepsQuotesAndHasNoLineBreak) {
  EXPECT_EQ(one_line("m.json: \"x\" is\r\nbad", 100), "m.json: \"x\" is\\r\\nbad");
  EXPECT_EQ(one_line("0123456789", 4), "0123...");
  EXPECT_EQ(first_line("it failed\nframe #0\n"), "it failed");
}

TEST(Counted, OneHasNoS) {
  EXPECT_EQ(counted(1, "step"), "1 step");
  EXPECT_EQ(counted(0, "step") + ", " + counted(2, "step"), "0 steps, 2 steps");
  EXPECT_EQ(counted(1, "pass", "passes") + ", " + counted(3, "pass", "passes"), "1 pass, 3 passes");
}

}  // namespace
}  // namespace seer
