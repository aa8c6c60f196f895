#include "seer/base/output.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "seer/base/error.h"
#include "seer/base/shown.h"

namespace seer {
namespace fs = std::filesystem;
namespace {

constexpr int kMostLinks = 40;  // as Linux follows them

std::string text_of(const fs::path& path) {
  return one_line(path.string(), 300);
}

bool is_same(const struct stat& a, const struct stat& b) {
  return a.st_dev == b.st_dev && a.st_ino == b.st_ino;
}

// The file that links lead to, which need not exist.
fs::path behind_links(const fs::path& path) {
  fs::path at = path;
  for (int i = 0; i < kMostLinks; ++i) {
    std::error_code error;
    if (!fs::is_symlink(fs::symlink_status(at, error))) return at;
    const fs::path to = fs::read_symlink(at, error);
    if (error) fail("cannot follow the link ", text_of(at), ": ", error.message());
    at = to.is_absolute() ? to : at.parent_path() / to;
  }
  fail("cannot write ", text_of(path), ": its links lead in circles; choose another file");
}

// Whether a file can be made in `folder`; the reason where not.
std::string why_not_writable(const fs::path& folder) {
  std::string probe = (folder / "seer.tmp.XXXXXX").string();
  const int fd = ::mkstemp(probe.data());
  if (fd < 0) return std::strerror(errno);
  ::close(fd);
  ::unlink(probe.c_str());
  return "";
}

// That files can be made in `folder`, or in the folders above where it is not there yet.
void check_parent(const fs::path& folder, const fs::path& path) {
  fs::path at = folder.empty() ? fs::path(".") : folder;
  std::error_code error;
  while (!fs::exists(at, error) && at.has_parent_path() && at != at.parent_path()) {
    if (fs::is_symlink(fs::symlink_status(at, error))) break;
    at = at.parent_path();
  }
  if (!fs::exists(at, error) && at.is_relative() && !fs::is_symlink(at, error)) at = ".";
  if (!fs::is_directory(at, error)) {
    fail("cannot write ", text_of(path), ": ", text_of(at),
         " is not a folder; choose another place");
  }
  const std::string reason = why_not_writable(at);
  if (!reason.empty()) {
    fail("cannot write ", text_of(path), ": no file can be made in ", text_of(at), " (", reason,
         "); choose another place");
  }
}

}  // namespace

Output output_at(const fs::path& path) {
  struct stat info{};
  if (::stat(path.c_str(), &info) != 0) {
    if (errno != ENOENT && errno != ENOTDIR && errno != ELOOP) {
      fail("cannot write ", text_of(path), ": ", std::strerror(errno), "; choose another file");
    }
    return {behind_links(path), -1};
  }
  // /dev/stdout is whatever the shell has opened: a file in it is not replaced.
  for (const int fd : {STDOUT_FILENO, STDERR_FILENO}) {
    struct stat own{};
    if (::fstat(fd, &own) == 0 && is_same(info, own) && !S_ISCHR(info.st_mode)) return {{}, fd};
  }
  const char* what = S_ISDIR(info.st_mode)    ? "a folder"
                     : S_ISSOCK(info.st_mode) ? "a socket"
                     : S_ISBLK(info.st_mode)  ? "a disk"
                                              : nullptr;
  if (what != nullptr) fail("cannot write ", text_of(path), ": it is ", what, "; name a file");
  if (!S_ISREG(info.st_mode)) return {{}, -1};
  return {behind_links(path), -1};
}

void check_output(const fs::path& path) {
  const Output output = output_at(path);
  if (!output.replaced.empty()) {
    check_parent(output.replaced.parent_path(), path);
  } else if (output.descriptor < 0 && ::access(path.c_str(), W_OK) != 0) {
    fail("cannot write ", text_of(path), ": ", std::strerror(errno), "; choose another file");
  }
}

bool is_same_file(const fs::path& a, const fs::path& b) {
  std::error_code error;
  return fs::is_regular_file(a, error) && fs::equivalent(a, b, error);
}

void check_output_folder(const fs::path& path) {
  std::error_code error;
  if (fs::exists(path, error) && !fs::is_directory(path, error)) {
    fail("cannot write into ", text_of(path), ": it is not a folder; choose another place");
  }
  check_parent(path, path);
}

}  // namespace seer
