#include "seer/base/shell.h"

#include <gtest/gtest.h>

namespace seer {
namespace {

TEST(ShellWord, IsQuotedWhereAShellWouldReadMoreThanAWord) {
  EXPECT_EQ(shell_word("runs/a-1/gates"), "runs/a-1/gates");
  EXPECT_EQ(shell_word("my model"), "'my model'");
  EXPECT_EQ(shell_word("it's $HOME"), "'it'\\''s $HOME'");
  EXPECT_EQ(shell_word(""), "''");
  EXPECT_EQ(shell_word("a;b"), "'a;b'");
  EXPECT_EQ(shell_word("caf\xc3\xa9"), "'caf\xc3\xa9'");
  EXPECT_EQ(shell_word("caf\xe9's"), "$'caf\\xe9\\'s'");
  EXPECT_EQ(shell_word("\x1b[2J\\"), "$'\\x1b[2J\\\\'");
  EXPECT_EQ(shell_word("a\xe2\x80\xae"), "$'a\\xe2\\x80\\xae'");
}

}  // namespace
}  // namespace seer
