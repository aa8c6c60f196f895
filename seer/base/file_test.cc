#include "seer/base/file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "seer/base/error.h"

namespace seer {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

template <class Call>
std::string error_of(Call&& call) {
  try {
    call();
  } catch (const Error& e) {
    return e.what();
  }
  return "";
}

TEST(File, RoundTripAndNothingLeftBeside) {
  const fs::path folder = fs::path(testing::TempDir()) / "file_test" / "deep";
  fs::remove_all(folder);
  write_file_atomic(folder / "a.txt", "one");
  write_file_atomic(folder / "a.txt", "two");
  EXPECT_EQ(read_file(folder / "a.txt"), "two");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 1);
}

TEST(File, WhatWasNotFinishedIsRemovedAndNothingElse) {
  const fs::path folder = fs::path(testing::TempDir()) / "file_test_unfinished";
  fs::remove_all(folder);
  for (const char* name :
       {"a.tmp.abcdef", "b.tmp.abcdef", "a", "notes.tmp.txt", "x.tmp.long-name"}) {
    write_file_atomic(folder / name, "x");
  }
  const auto names = [&] {
    std::vector<std::string> found;
    for (const auto& entry : fs::directory_iterator(folder)) {
      found.push_back(entry.path().filename().string());
    }
    return found;
  };
  using testing::UnorderedElementsAre;
  remove_unfinished(folder, "a");
  EXPECT_THAT(names(),
              UnorderedElementsAre("b.tmp.abcdef", "a", "notes.tmp.txt", "x.tmp.long-name"));
  remove_unfinished(folder);
  EXPECT_THAT(names(), UnorderedElementsAre("a", "notes.tmp.txt", "x.tmp.long-name"));
  remove_unfinished(folder / "not there");
}

TEST(FileLock, OneHoldsIt) {
  const std::filesystem::path path = std::filesystem::path(testing::TempDir()) / "of" / "a.lock";
  FileLock other(path);
  {
    FileLock first(path);
    EXPECT_TRUE(first.try_lock());
    EXPECT_FALSE(other.try_lock());
  }
  EXPECT_TRUE(other.try_lock());
}

TEST(File, AFailedWriteKeepsTheOldFile) {
  const fs::path folder = fs::path(testing::TempDir()) / "file_test_failed";
  fs::remove_all(folder);
  write_file_atomic(folder / "a.txt", "old");
  EXPECT_EQ(error_of([&] {
              write_file_atomic(folder / "a.txt", [](const Sink& sink) {
                sink("half", 4);
                fail("stop");
              });
            }),
            "stop");
  EXPECT_EQ(read_file(folder / "a.txt"), "old");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 1);
}

TEST(File, ErrorsNameThePath) {
  EXPECT_THAT(error_of([] { read_file("/no/such/file"); }), HasSubstr("cannot open /no/such/file"));
  EXPECT_THAT(error_of([] { read_file("/tmp"); }), HasSubstr("/tmp: not a file"));
  EXPECT_THAT(error_of([] { write_file_atomic("/proc/x/y", "z"); }), HasSubstr("/proc/x"));
}

TEST(File, EmptyFile) {
  const fs::path path = fs::path(testing::TempDir()) / "empty";
  write_file_atomic(path, "");
  EXPECT_EQ(read_file(path), "");
}

}  // namespace
}  // namespace seer
