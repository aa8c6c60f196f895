#include "seer/base/file_lock.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <string>
#include <thread>

#include "seer/base/error.h"

namespace seer {
namespace {

using std::chrono::milliseconds;

std::filesystem::path lock_path() {
  return std::filesystem::path(testing::TempDir()) / "of" / "a.lock";
}

TEST(FileLock, OneHoldsIt) {
  FileLock other(lock_path());
  {
    FileLock first(lock_path());
    EXPECT_TRUE(first.try_lock());
    EXPECT_FALSE(other.try_lock());
  }
  EXPECT_TRUE(other.try_lock());
}

TEST(FileLock, WhoeverShowsNoLifeIsNamed) {
  FileLock first(lock_path()), other(lock_path());
  ASSERT_TRUE(first.try_lock());
  first.beat(std::chrono::hours(1));
  try {
    other.lock(milliseconds(30));
    FAIL() << "two have it";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(),
                testing::AllOf(testing::StartsWith(lock_path().string()),
                               testing::HasSubstr("process " + std::to_string(getpid()) + " on "),
                               testing::HasSubstr("no sign of life")));
  }
}

TEST(FileLock, WhoeverBeatsIsWaitedFor) {
  const milliseconds patience(1000);
  std::atomic<bool> is_free = false;
  std::thread waits;
  {
    FileLock first(lock_path());
    ASSERT_TRUE(first.try_lock());
    first.beat(milliseconds(5));
    waits = std::thread([&] {
      FileLock other(lock_path());
      EXPECT_NO_THROW(other.lock(patience));
      EXPECT_TRUE(is_free);
    });
    std::this_thread::sleep_for(patience * 3 / 2);
    is_free = true;
  }
  waits.join();
}

}  // namespace
}  // namespace seer
