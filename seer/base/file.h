#pragma once
// Files: whole reads, read-only mappings, atomic writes. Errors name the path and the reason.

#include <cstddef>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>

namespace seer {

std::string read_file(const std::filesystem::path& path);
// Error: there is no such file, it cannot be read, or it is a folder. Before work that needs it begins.
void check_input(const std::filesystem::path& path);

// A read-only mapping of a whole file; empty files give an empty view.
class MappedFile {
 public:
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  const std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

// Calls `write` with a sink for bytes that go to a temporary file beside `path`, then syncs and renames
// it: a reader sees the old file or the whole new one. On an error nothing is left behind. Folders on
// the way are made. A file that is there keeps its permissions, a new one has those of the umask. A
// symbolic link stays, the file behind it is replaced. What is no file (a pipe, a terminal, /dev/null)
// and what is open as standard output is written through (output.h).
class Sink {
 public:
  Sink(int file, const std::filesystem::path& path) : file_(file), path_(path) {}
  void operator()(const void* bytes, size_t size) const;
  // Other bytes in place of those that were written `at` bytes from the beginning. Error: a pipe.
  void replace(size_t at, std::string_view bytes) const;

 private:
  int file_;
  const std::filesystem::path& path_;
};
void write_file_atomic(const std::filesystem::path& path,
                       const std::function<void(const Sink&)>& write);
void write_file_atomic(const std::filesystem::path& path, std::string_view text);
// Removes what killed processes were writing in `folder`, where there is one: temporary files whose
// names begin so. For whoever alone may write them.
void remove_unfinished(const std::filesystem::path& folder, const std::string& begin = "");

}  // namespace seer
