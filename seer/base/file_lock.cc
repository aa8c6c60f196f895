#include "seer/base/file_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <condition_variable>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <string>

#include "seer/base/error.h"

namespace seer {
namespace {

constexpr std::chrono::milliseconds kPause{100};

std::string this_process() {
  char host[65] = "";
  gethostname(host, sizeof host - 1);
  return message("process ", getpid(), " on ", host);
}

// Of the last beat; changes are all that counts.
int64_t time_of(int fd) {
  struct stat info{};
  if (::fstat(fd, &info) != 0) return 0;
  return int64_t{info.st_mtim.tv_sec} * 1'000'000'000 + info.st_mtim.tv_nsec;
}

// As the one that has the lock wrote it.
std::string holder_of(int fd) {
  char text[128];
  const ssize_t size = ::pread(fd, text, sizeof text, 0);
  if (size <= 0) return "another process";
  return {text, static_cast<size_t>(size)};
}

}  // namespace

FileLock::FileLock(const std::filesystem::path& path) : path_(path) {
  std::error_code error;
  std::filesystem::create_directories(path.parent_path(), error);
  file_ = Descriptor(::open(path.c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0666));
  if (!file_.is_open()) fail("cannot write ", path.string(), ": ", std::strerror(errno));
}

bool FileLock::try_lock() {
  while (::flock(file_.fd(), LOCK_EX | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno == EWOULDBLOCK) return false;
    fail("cannot lock ", path_.string(), ": ", std::strerror(errno),
         "; choose a folder on another file system");
  }
  return true;
}

void FileLock::lock(std::chrono::milliseconds patience) {
  const auto pause = std::clamp(patience / 10, std::chrono::milliseconds(1), kPause);
  // Counted in own looks: where this process is stopped and goes on, the other has not been silent.
  int64_t beat = time_of(file_.fd());
  for (int64_t looks = 0; !try_lock(); ++looks) {
    SEER_CHECK(looks * pause <= patience, path_.string(), ": ", holder_of(file_.fd()),
               " has locked this and has shown no sign of life for ",
               std::chrono::duration_cast<std::chrono::seconds>(patience).count(),
               " s: end that process and start again, or choose another folder");
    std::this_thread::sleep_for(pause);
    const int64_t last = time_of(file_.fd());
    if (last != beat) looks = 0;
    beat = last;
  }
}

void FileLock::beat(std::chrono::milliseconds every) {
  const std::string holder = this_process();
  // Only for the error of those who wait: no reason to stop where the disk is full.
  if (::ftruncate(file_.fd(), 0) != 0 || ::pwrite(file_.fd(), holder.data(), holder.size(), 0) !=
                                             static_cast<ssize_t>(holder.size())) {
    ::futimens(file_.fd(), nullptr);
  }
  beat_ = std::jthread([fd = file_.fd(), every](const std::stop_token& stop) {
    std::mutex own;
    std::unique_lock lock(own);
    std::condition_variable_any asleep;
    while (!asleep.wait_for(lock, stop, every, [] { return false; }) && !stop.stop_requested()) {
      ::futimens(fd, nullptr);
    }
  });
}

}  // namespace seer
