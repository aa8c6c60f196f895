#include "seer/base/child.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <cerrno>

namespace seer {
namespace {

using End = ChildResult::End;
using std::chrono::seconds;

TEST(Child, BytesGoInAndComeOut) {
  std::string much(3'000'000, 'x');  // more than a socket holds, both ways at once
  much[1'000'000] = '\0';
  const ChildResult result = run_child({"cat"}, much, seconds(60), much.size());
  EXPECT_EQ(result.end, End::exited);
  EXPECT_EQ(result.status, 0);
  EXPECT_TRUE(result.output == much);
  EXPECT_EQ(run_child({"cat"}, "", seconds(60), 0).output, "");
}

TEST(Child, SaysHowItEnded) {
  EXPECT_EQ(run_child({"sh", "-c", "echo a; exit 3"}, "", seconds(60), 9).status, 3);
  EXPECT_EQ(run_child({"sh", "-c", "echo a >&2; echo b >&2"}, "", seconds(60), 9).last_line, "b");
  const ChildResult killed = run_child({"sh", "-c", "kill -SEGV $$"}, "", seconds(60), 9);
  EXPECT_EQ(killed.end, End::killed);
  EXPECT_EQ(killed.status, SIGSEGV);
  const ChildResult missing = run_child({"/no/such/program"}, "", seconds(60), 9);
  EXPECT_EQ(missing.end, End::not_started);
  EXPECT_EQ(missing.status, ENOENT);
}

TEST(Child, EndsWithoutReadingItsInput) {
  const ChildResult result =
      run_child({"sh", "-c", "echo a"}, std::string(3'000'000, 'x'), seconds(60), 9);
  EXPECT_EQ(result.end, End::exited);
  EXPECT_EQ(result.output, "a\n");
}

TEST(Child, IsKilledAtItsLimits) {
  EXPECT_EQ(run_child({"sleep", "60"}, "", std::chrono::milliseconds(50), 9).end, End::too_long);
  EXPECT_EQ(run_child({"yes"}, "", seconds(60), 100'000).end, End::too_much);
}

}  // namespace
}  // namespace seer
