#pragma once
// For tests of training: a folder that goes away with the test, metrics without times, and the same
// program started again to be killed.

#include <gtest/gtest.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "seer/base/file.h"
#include "seer/base/random.h"
#include "seer/train/ranks/ranks.h"

namespace seer::train {

class RunTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "seer-run-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder); }

  std::filesystem::path folder;
};

// The lines of metrics.jsonl without what measures time.
inline std::vector<nlohmann::ordered_json> metrics_of(const std::filesystem::path& out) {
  std::istringstream text(read_file(out / "metrics.jsonl"));
  std::vector<nlohmann::ordered_json> lines;
  for (std::string line; std::getline(text, line);) {
    lines.push_back(nlohmann::ordered_json::parse(line));
    lines.back().erase("seconds");
    lines.back().erase("tokens_per_s");
  }
  return lines;
}

// Starts this program again with one (disabled) test, which finds `out` in the environment.
inline pid_t start_child(const std::string& test, const std::filesystem::path& out) {
  const std::string filter = "--gtest_filter=" + test;
  std::string program = std::filesystem::read_symlink("/proc/self/exe").string();
  std::vector<const char*> argv{program.c_str(), filter.c_str(), "--gtest_also_run_disabled_tests",
                                "--gtest_brief=1", nullptr};
  ::setenv("SEER_TEST_OUT", out.c_str(), 1);
  pid_t child = -1;
  if (::posix_spawn(&child, program.c_str(), nullptr, nullptr, const_cast<char**>(argv.data()),
                    environ) != 0) {
    ADD_FAILURE() << "cannot start " << program;
  }
  return child;
}

// Sends this process SIGINT when the last checkpoint of the n-th run is there.
class StopsAfterRun : public Ranks {
 public:
  explicit StopsAfterRun(int n) : left_(2 * n) {}
  void meet() override {  // at the begin of a run and at its end
    if (--left_ == 0) ::raise(SIGINT);
  }

 private:
  int left_;
};

// Waits; whether it ended by itself, without failure.
inline bool ended_well(pid_t child) {
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

// Kills the child with SIGKILL after `microseconds` (< 0: never). Returns whether it ended well.
inline bool run_child(const std::string& test, const std::filesystem::path& out,
                      int64_t microseconds) {
  const pid_t child = start_child(test, out);
  if (child > 0 && microseconds >= 0) {
    ::usleep(static_cast<useconds_t>(microseconds));
    ::kill(child, SIGKILL);
  }
  return child > 0 && ended_well(child);
}

inline std::filesystem::path child_out() {
  const char* out = std::getenv("SEER_TEST_OUT");
  return out == nullptr ? "" : out;
}

// A child that is killed again and again, and goes on, ends with the result and the metrics of one that
// is not: `test` makes runs in `folder`, which write `result`.
inline void expect_kills_change_nothing(const std::string& test,
                                        const std::filesystem::path& folder,
                                        const std::string& result) {
  ASSERT_TRUE(run_child(test, folder / "whole", -1));
  Random random(5);
  int kills = 0;
  for (int64_t wait = 400'000; kills < 12; ++kills, wait = wait * 5 / 4) {
    const auto microseconds = static_cast<int64_t>(random.below(static_cast<uint64_t>(2 * wait)));
    if (run_child(test, folder / "killed", microseconds)) break;
  }
  ASSERT_TRUE(run_child(test, folder / "killed", -1));
  EXPECT_GE(kills, 1);
  EXPECT_EQ(read_file(folder / "killed" / result), read_file(folder / "whole" / result));
  EXPECT_EQ(metrics_of(folder / "killed"), metrics_of(folder / "whole"));
}

}  // namespace seer::train
