#pragma once
// Bytes of a file in order, unpacked where the file is Zstandard.

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace seer::io {

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // The next bytes, valid until the next call; empty at the end. Error names the file: it cannot be
  // read, is cut off, is not Zstandard or is damaged.
  virtual std::string_view next() = 0;
};

// Unpacks a path that ends in .zst (any window size that the format has), reads others as they are.
// Error: not there, or without a byte.
std::unique_ptr<ByteStream> open_byte_stream(const std::filesystem::path& path);

}  // namespace seer::io
