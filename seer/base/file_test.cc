#include "seer/base/file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include "seer/base/error.h"
#include "seer/base/output.h"

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

TEST(File, PermissionsAreThoseOfTheUmaskOrOfTheFileThatIsReplaced) {
  const fs::path path = fs::path(testing::TempDir()) / "file_test_permissions";
  fs::remove(path);
  const auto mode = [&] { return static_cast<unsigned>(fs::status(path).permissions()); };
  for (const unsigned umask : {027u, 002u}) {
    const mode_t before = ::umask(umask);
    write_file_atomic(path, "new");
    ::umask(before);
    EXPECT_EQ(mode(), 0666 & ~umask);
    fs::remove(path);
  }
  write_file_atomic(path, "old");
  fs::permissions(path, fs::perms(0600));
  write_file_atomic(path, "new");
  EXPECT_EQ(mode(), 0600u);
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

TEST(Output, LinksStayAndTheirFilesAreReplaced) {
  const fs::path folder = fs::path(testing::TempDir()) / "file_test_links";
  fs::remove_all(folder);
  write_file_atomic(folder / "to" / "old", "old");
  fs::create_symlink("to/old", folder / "first");
  fs::create_symlink(folder / "first", folder / "second");
  fs::create_symlink("to/new", folder / "third");  // of a file that is not there yet
  write_file_atomic(folder / "second", "a");
  write_file_atomic(folder / "third", "b");
  EXPECT_TRUE(fs::is_symlink(folder / "first") && fs::is_symlink(folder / "second"));
  EXPECT_EQ(read_file(folder / "to" / "old"), "a");
  EXPECT_EQ(read_file(folder / "to" / "new"), "b");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder / "to"), {}), 2);
}

TEST(Output, DevicesAndPipesAreWrittenThrough) {
  const fs::path pipe = fs::path(testing::TempDir()) / "file_test_pipe";
  fs::remove(pipe);
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  const int reader = ::open(pipe.c_str(), O_RDONLY | O_NONBLOCK);
  write_file_atomic(pipe, "text");
  char text[8] = {};
  EXPECT_EQ(::read(reader, text, sizeof text), 4);
  EXPECT_STREQ(text, "text");
  ::close(reader);
  EXPECT_TRUE(fs::is_fifo(pipe));
  check_output("/dev/null");
  write_file_atomic("/dev/null", "text");
  EXPECT_TRUE(fs::is_character_file("/dev/null"));
}

TEST(Output, IsCheckedBeforehand) {
  const fs::path folder = fs::path(testing::TempDir()) / "file_test_check";
  fs::remove_all(folder);
  write_file_atomic(folder / "file", "mine");
  fs::create_symlink("circle", folder / "circle");
  check_output(folder / "file");
  check_output(folder / "new");
  check_output(folder / "deep" / "er" / "new");
  check_output_folder(folder / "deep" / "er");
  check_output("file_test_in_the_current_folder");
  const auto refused = [](const fs::path& path) { return error_of([&] { check_output(path); }); };
  EXPECT_THAT(refused(folder), HasSubstr("it is a folder"));
  EXPECT_THAT(refused(folder / "file" / "new"), HasSubstr("file is not a folder"));
  EXPECT_THAT(refused(folder / "circle"), HasSubstr("in circles"));
  EXPECT_THAT(refused("/proc/none/new"), HasSubstr("no file can be made in /proc"));
  EXPECT_THAT(error_of([&] { check_output_folder(folder / "file"); }), HasSubstr("not a folder"));
  EXPECT_EQ(read_file(folder / "file"), "mine");
  EXPECT_EQ(std::distance(fs::directory_iterator(folder), {}), 2);
}

TEST(File, EmptyFile) {
  const fs::path path = fs::path(testing::TempDir()) / "empty";
  write_file_atomic(path, "");
  EXPECT_EQ(read_file(path), "");
}

}  // namespace
}  // namespace seer
