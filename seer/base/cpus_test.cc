#include "seer/base/cpus.h"

#include <gtest/gtest.h>

#include "seer/base/file.h"

namespace seer {
namespace {

namespace fs = std::filesystem;

class Cpus : public testing::Test {
 protected:
  Cpus() { fs::remove_all(folder_); }
  ~Cpus() override { fs::remove_all(folder_); }
  void write(const std::string& name, const std::string& text) {
    write_file_atomic(folder_ / name, text);
  }
  double given() const { return cgroup_cpus(folder_ / "groups", folder_ / "mounts"); }
  const fs::path folder_ = fs::path(testing::TempDir()) / "cpus_test";
};

TEST_F(Cpus, AtLeastOne) {
  EXPECT_GE(usable_cpus(), 1);
}

TEST_F(Cpus, NoGroupIsNoLimit) {
  EXPECT_EQ(given(), 0);
  write("groups", "0::/a\n");
  EXPECT_EQ(given(), 0);
  write("mounts/a/cpu.max", "max 100000\n");
  EXPECT_EQ(given(), 0);
}

TEST_F(Cpus, TheSmallestLimitOnTheWayUp) {
  write("groups", "0::/a/b/c\n");
  write("mounts/a/b/c/cpu.max", "max 100000\n");
  write("mounts/a/b/cpu.max", "400000 100000\n");
  write("mounts/a/cpu.max", "150000 100000\n");
  EXPECT_EQ(given(), 1.5);
  write("mounts/a/cpu.max", "800000 100000\n");
  EXPECT_EQ(given(), 4);
}

// In a container its own group is at the root, whatever the path says.
TEST_F(Cpus, TheRootOfAContainer) {
  write("groups", "0::/../other\n");
  write("mounts/cpu.max", "200000 100000\n");
  EXPECT_EQ(given(), 2);
}

TEST_F(Cpus, VersionOne) {
  write("groups", "12:cpuset:/a\n4:cpu,cpuacct:/a\n1:name=systemd:/a\n");
  write("mounts/cpu/a/cpu.cfs_quota_us", "-1\n");
  write("mounts/cpu/a/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(given(), 0);
  write("mounts/cpu/cpu.cfs_quota_us", "50000\n");
  write("mounts/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(given(), 0.5);
}

}  // namespace
}  // namespace seer
