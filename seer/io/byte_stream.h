#pragma once
// Bytes of a file in order, unpacked where the file is packed with gzip or Zstandard.

#include <filesystem>
#include <memory>
#include <string_view>

#include "seer/io/text_kind.h"

namespace seer::io {

class ByteStream {
 public:
  virtual ~ByteStream() = default;
  // The next bytes, valid until the next call; empty at the end. Error names the file: it cannot be
  // read, is cut off or damaged, or would need more memory to unpack than its size justifies.
  virtual std::string_view next() = 0;
};

// Error: not there, not a regular file (a folder, a pipe, a device), without a byte, not packed as
// said.
std::unique_ptr<ByteStream> open_byte_stream(const std::filesystem::path& path, Packing packing);

}  // namespace seer::io
