#pragma once
// What the fuzz targets share. A target writes its input to the file that a reader opens and calls the
// reader: seer::Error is an answer, any other exception, a sanitizer's report, a hang or more than
// 2 GB of memory is a find.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <string_view>

#include <unistd.h>

#include "seer/base/error.h"

namespace seer::fuzz {

// A folder of this process in memory.
inline const std::filesystem::path& folder() {
  static const std::filesystem::path path = [] {
    const auto made =
        std::filesystem::path("/dev/shm") / ("seer-fuzz-" + std::to_string(::getpid()));
    std::filesystem::create_directories(made);
    std::atexit([] { std::filesystem::remove_all(folder()); });
    return made;
  }();
  return path;
}

inline std::filesystem::path write(const std::string& name, std::string_view bytes) {
  const auto path = folder() / name;
  std::ofstream(path, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return path;
}

inline void expect_answer(const std::function<void()>& read) {
  try {
    read();
  } catch (const Error&) {
  }
}

// The parts of an input that are separated by zero bytes: files of one folder.
inline std::string_view next_part(std::string_view& rest) {
  const size_t end = rest.find('\0');
  const std::string_view part = rest.substr(0, end);
  rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
  return part;
}

inline std::string_view view(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

}  // namespace seer::fuzz
