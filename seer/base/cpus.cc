#include "seer/base/cpus.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <thread>

namespace seer {
namespace {

namespace fs = std::filesystem;

// "QUOTA PERIOD" in one file, or one number in each of two; 0: no limit ("max", -1, no file).
double quota(const fs::path& quota_file, const fs::path& period_file) {
  std::ifstream file(quota_file);
  double time = 0, period = 0;
  if (!(file >> time)) return 0;
  if (!(file >> period)) std::ifstream(period_file) >> period;
  return time > 0 && period > 0 ? time / period : 0;
}

// The smallest limit of a group and those around it.
double smallest(const fs::path& mount, fs::path group, const char* quota_file,
                const char* period_file) {
  double least = 0;
  for (;; group = group.parent_path()) {
    const fs::path folder = mount / group.relative_path();
    const double cpus = quota(folder / quota_file, folder / period_file);
    if (cpus > 0) least = least == 0 ? cpus : std::min(least, cpus);
    if (!group.has_relative_path()) return least;
  }
}

bool has_word(const std::string& list, const std::string& word) {
  return ("," + list + ",").find("," + word + ",") != std::string::npos;
}

}  // namespace

double cgroup_cpus(const fs::path& groups, const fs::path& mounts) {
  std::ifstream file(groups);
  double least = 0;
  // "0::/group" of version 2, "4:cpu,cpuacct:/group" of version 1.
  for (std::string line; std::getline(file, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const fs::path group = line.substr(second + 1);
    double cpus = 0;
    if (controllers.empty()) {
      cpus = smallest(mounts, group, "cpu.max", "");
    } else if (has_word(controllers, "cpu")) {
      cpus = smallest(mounts / "cpu", group, "cpu.cfs_quota_us", "cpu.cfs_period_us");
    }
    if (cpus > 0) least = least == 0 ? cpus : std::min(least, cpus);
  }
  return least;
}

int usable_cpus() {
  cpu_set_t mask;
  CPU_ZERO(&mask);
  int cpus = sched_getaffinity(0, sizeof mask, &mask) == 0
                 ? CPU_COUNT(&mask)
                 : static_cast<int>(std::thread::hardware_concurrency());
  const double given = cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
  if (given > 0) cpus = std::min(cpus, static_cast<int>(std::ceil(std::min(given, 1e6))));
  return std::max(1, cpus);
}

}  // namespace seer
