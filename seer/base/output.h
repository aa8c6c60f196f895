#pragma once
// Where results go: a file that is replaced as a whole, or something that exists already and is not
// this program's to replace (a pipe, a terminal, /dev/null): that is written through.

#include <filesystem>

namespace seer {

// How a path is written.
struct Output {
  // What is replaced: `path` itself, or what its symbolic links lead to. Empty: written through.
  std::filesystem::path replaced;
  // Written through: this descriptor of the process (standard output or error), or -1: opened.
  int descriptor = -1;
};

// Error, with a reason and what to do: a folder, a socket, a block device, links that lead in circles.
Output output_at(const std::filesystem::path& path);

// Before work begins whose results go to `path`. Error: it could not be written. Leaves nothing.
void check_output(const std::filesystem::path& path);
// The same of a folder that files will be written into, and that is made where there is none.
void check_output_folder(const std::filesystem::path& path);

// Whether both are one file that is there.
bool is_same_file(const std::filesystem::path& a, const std::filesystem::path& b);

}  // namespace seer
