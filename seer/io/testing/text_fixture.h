#pragma once
// For tests: files of texts that are written and read, and packed bytes made by hand.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/io/text.h"

namespace seer::io {

class TextTest : public ::testing::Test {
 protected:
  TextTest()
      : folder_(std::filesystem::path(::testing::TempDir()) /
                ("seer_text_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~TextTest() override { std::filesystem::remove_all(folder_); }

  std::vector<std::string> read(const std::string& name, const std::string& content) {
    write_file_atomic(folder_ / name, content);
    std::vector<std::string> out;
    for_each_document(folder_ / name, [&](std::string&& text) { out.push_back(std::move(text)); });
    return out;
  }

  std::string error_of(const std::string& name, const std::string& content) {
    try {
      read(name, content);
    } catch (const Error& error) {
      EXPECT_THAT(error.what(), ::testing::HasSubstr(name));
      return error.what();
    }
    return "no error";
  }

  std::filesystem::path folder_;
};

// A Zstandard frame of one raw block (RFC 8878), with a window as `zstd --long` makes them.
inline std::string zstd_frame(const std::string& content, int window_log = 17) {
  std::string out("\x28\xB5\x2F\xFD\x00", 5);
  out += static_cast<char>((window_log - 10) << 3);
  const size_t header = content.size() << 3 | 1;
  for (int i = 0; i < 3; ++i) out += static_cast<char>(header >> (8 * i));
  return out + content;
}

// A Zstandard frame of blocks of 128 KiB that repeat one byte.
inline std::string zstd_frame_of(char byte, int64_t bytes) {
  std::string out("\x28\xB5\x2F\xFD\x00\x38", 6);
  constexpr int kBlock = 128 << 10;
  for (int64_t done = 0; done < bytes; done += kBlock) {
    const int header = kBlock << 3 | 1 << 1 | (done + kBlock >= bytes ? 1 : 0);
    for (int i = 0; i < 3; ++i) out += static_cast<char>(header >> (8 * i));
    out += byte;
  }
  return out;
}

// A gzip member of one stored block (RFC 1951, 1952), shorter than 64 KiB.
inline std::string gzip_member(const std::string& content) {
  std::string out("\x1F\x8B\x08\x00\x00\x00\x00\x00\x00\xFF\x01", 11);
  const auto put = [&](uint32_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) out += static_cast<char>(value >> (8 * i));
  };
  const auto size = static_cast<uint32_t>(content.size());
  put(size, 2);
  put(~size, 2);
  out += content;
  uint32_t crc = ~0u;
  for (const unsigned char c : content) {
    crc ^= c;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ (crc & 1 ? 0xEDB88320u : 0);
  }
  put(~crc, 4);
  put(size, 4);
  return out;
}

}  // namespace seer::io
