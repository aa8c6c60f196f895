#pragma once
// A lock between processes.

#include <chrono>
#include <filesystem>
#include <thread>

#include "seer/base/descriptor.h"

namespace seer {

// On a file that is made for it. Held until this object or its process ends, however it ends. Error:
// the file system has no locks.
class FileLock {
 public:
  explicit FileLock(const std::filesystem::path& path);

  // False: another process has it.
  bool try_lock();
  // Waits for it. Error: whoever has it, named, shows no sign of life for `patience` (a process that
  // is stopped, a machine that is gone).
  void lock(std::chrono::milliseconds patience = std::chrono::minutes(2));
  // To be called by whoever has it: shows others that it lives as long as it does.
  void beat(std::chrono::milliseconds every = std::chrono::seconds(1));

 private:
  std::filesystem::path path_;
  Descriptor file_;
  std::jthread beat_;  // ends before its file is closed
};

}  // namespace seer
