#pragma once
// safetensors files: mapped for reading, written atomically. Headers come from outside: every
// length is checked before it is used.

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "seer/base/error.h"

namespace seer::io {

// A file that is not what its format wants. `reason`: what is wrong, without path and remedy.
struct BadSafetensors : Error {
  BadSafetensors(const std::string& text, std::string reason)
      : Error(text), reason(std::move(reason)) {}
  std::string reason;
};

// One tensor of a file. `data` points into the mapping and lives as long as the file object. It has
// the alignment that the file gives it: files written here begin their data at a multiple of 8.
struct TensorRecord {
  std::string dtype;  // "F32", "F16", "BF16", "F64", "I64", "I32", "U8", "BOOL" ...
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;
};

class SafetensorsFile {
 public:
  // Error names the path: not there, truncated, header not valid JSON, offsets that overlap or
  // leave the file, sizes that do not match shape and dtype.
  explicit SafetensorsFile(const std::filesystem::path& path);
  const std::map<std::string, TensorRecord>& tensors() const { return tensors_; }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  // Error names the tensor and the file.
  const TensorRecord& at(const std::string& name) const;
  bool contains(const std::string& name) const { return tensors_.count(name) > 0; }
  const std::filesystem::path& path() const { return path_; }
  // Error (BadSafetensors): the file has no checksum, or other bytes than were written.
  void check_sum() const;
  // Keeps the mapping alive as long as a copy of it lives (for tensors made on the mapped memory).
  std::shared_ptr<const void> mapping() const { return mapping_; }

 private:
  std::filesystem::path path_;
  std::map<std::string, TensorRecord> tensors_;
  std::map<std::string, std::string> metadata_;
  std::shared_ptr<const void> mapping_;
};

// Tensors in the order given; a temporary file beside `path` that is synced and renamed, so that a
// reader sees the old file or the new one. Error: what failed (a full disk, too), nothing left
// behind. `with_checksum`: over all bytes, as "checksum" in the metadata; not for a pipe. `bytes_of(i)`, where
// it is given, says where the bytes of tensor i lie, in place of its record: it is asked in order, and
// they are read before the next call.
struct NamedTensor {
  std::string name;
  TensorRecord tensor;
};
using BytesOf = std::function<const std::byte*(size_t i)>;
void write_safetensors(const std::filesystem::path& path, const std::vector<NamedTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {},
                       bool with_checksum = false, const BytesOf& bytes_of = nullptr);

}  // namespace seer::io
