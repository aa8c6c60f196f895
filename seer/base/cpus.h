#pragma once
// How many CPUs this process may use.

#include <filesystem>

namespace seer {

// Those of its affinity mask, and no more than its control groups give it time for (a container's
// `--cpus`), rounded up; at least 1.
int usable_cpus();

// The time that control groups give, in CPUs; 0: no limit. `groups` is /proc/self/cgroup, `mounts`
// /sys/fs/cgroup: version 2, or version 1 with its controllers' folders.
double cgroup_cpus(const std::filesystem::path& groups, const std::filesystem::path& mounts);

}  // namespace seer
