#include "seer/base/file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>

#include "seer/base/descriptor.h"
#include "seer/base/error.h"
#include "seer/base/output.h"
#include "seer/base/random.h"
#include "seer/base/shown.h"

namespace seer {
namespace {

// What a temporary file's name ends with: this mark and some letters.
constexpr std::string_view kMark = ".tmp.";
constexpr size_t kLetters = 6;

std::string reason() {
  return std::strerror(errno);
}

// A new file beside `path`. Not by mkstemp(), which hides it from others whatever the umask says.
Descriptor open_temporary(const std::filesystem::path& path, std::string* name) {
  static std::atomic<uint64_t> count = 0;
  constexpr int kAttempts = 100;
  for (int attempt = 0;; ++attempt) {
    const auto time = std::chrono::system_clock::now().time_since_epoch().count();
    Random letters(static_cast<uint64_t>(time) ^ static_cast<uint64_t>(::getpid()) << 40, count++);
    *name = path.string().append(kMark);
    for (size_t i = 0; i < kLetters; ++i) *name += static_cast<char>('a' + letters.below(26));
    Descriptor file(::open(name->c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666));
    if (file.is_open() || errno != EEXIST || attempt == kAttempts) return file;
  }
}

// A file that is replaced keeps its permissions.
void keep_permissions(const std::filesystem::path& old, const Descriptor& file) {
  struct stat info{};
  if (::stat(old.c_str(), &info) == 0) ::fchmod(file.fd(), info.st_mode & 0777);
}

void write_all(int fd, const char* bytes, size_t size, const std::filesystem::path& path) {
  while (size > 0) {
    const ssize_t written = ::write(fd, bytes, size);
    if (written < 0) {
      if (errno == EINTR) continue;
      fail("cannot write ", path.string(), ": ", reason(),
           "; free some space or choose another folder");
    }
    bytes += written;
    size -= static_cast<size_t>(written);
  }
}

void write_through(const std::filesystem::path& path, int descriptor,
                   const std::function<void(const Sink&)>& write) {
  const Descriptor opened(descriptor < 0 ? ::open(path.c_str(), O_WRONLY | O_CLOEXEC | O_NOCTTY)
                                         : -1);
  if (descriptor < 0 && !opened.is_open()) fail("cannot write ", path.string(), ": ", reason());
  std::fflush(stdout);  // what was printed before comes before
  write(Sink(descriptor < 0 ? opened.fd() : descriptor, path));
}

}  // namespace

std::string read_file(const std::filesystem::path& path) {
  const MappedFile file(path);
  return {reinterpret_cast<const char*>(file.data()), file.size()};
}

void check_input(const std::filesystem::path& path) {
  std::error_code error;
  if (std::filesystem::is_directory(path, error)) {
    fail("cannot read ", one_line(path.string(), 300), ": it is a folder, want a file");
  }
  if (::access(path.c_str(), R_OK) != 0) {
    fail("cannot open ", one_line(path.string(), 300), ": ", reason());
  }
}

void Sink::operator()(const void* bytes, size_t size) const {
  write_all(file_, static_cast<const char*>(bytes), size, path_);
}

void Sink::replace(size_t at, std::string_view bytes) const {
  const ssize_t written = ::pwrite(file_, bytes.data(), bytes.size(), static_cast<off_t>(at));
  if (written != static_cast<ssize_t>(bytes.size())) {
    fail("cannot write ", path_.string(), ": ", reason());
  }
}

MappedFile::MappedFile(const std::filesystem::path& path) {
  const Descriptor file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (!file.is_open()) fail("cannot open ", path.string(), ": ", reason());
  struct stat info{};
  if (::fstat(file.fd(), &info) != 0) fail("cannot read ", path.string(), ": ", reason());
  if (!S_ISREG(info.st_mode)) fail("cannot read ", path.string(), ": not a file");
  size_ = static_cast<size_t>(info.st_size);
  if (size_ == 0) return;
  void* at = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, file.fd(), 0);
  if (at == MAP_FAILED) fail("cannot map ", path.string(), ": ", reason());
  data_ = static_cast<const std::byte*>(at);
}

MappedFile::~MappedFile() {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
}

void write_file_atomic(const std::filesystem::path& asked,
                       const std::function<void(const Sink&)>& write) {
  const Output output = output_at(asked);
  if (output.replaced.empty()) return write_through(asked, output.descriptor, write);
  const std::filesystem::path& path = output.replaced;
  const auto folder = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) fail("cannot make the folder ", folder.string(), ": ", error.message());

  std::string temporary;
  const Descriptor file = open_temporary(path, &temporary);
  if (!file.is_open()) fail("cannot write in ", folder.string(), ": ", reason());
  try {
    write(Sink(file.fd(), path));
    keep_permissions(path, file);
    // Some filesystems report a full disk only here.
    if (::fsync(file.fd()) != 0) fail("cannot write ", path.string(), ": ", reason());
    if (::rename(temporary.c_str(), path.c_str()) != 0) {
      fail("cannot write ", path.string(), ": ", reason());
    }
  } catch (...) {
    ::unlink(temporary.c_str());
    throw;
  }
  // The rename itself reaches the disk with the folder.
  const Descriptor dir(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (dir.is_open()) ::fsync(dir.fd());
}

void write_file_atomic(const std::filesystem::path& path, std::string_view text) {
  write_file_atomic(path, [&](const Sink& sink) { sink(text.data(), text.size()); });
}

void remove_unfinished(const std::filesystem::path& folder, const std::string& begin) {
  if (!std::filesystem::exists(folder)) return;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    const size_t at = name.size() - std::min(name.size(), kMark.size() + kLetters);
    if (name.starts_with(begin) && name.compare(at, kMark.size(), kMark) == 0) {
      std::filesystem::remove(entry.path());
    }
  }
}

}  // namespace seer
