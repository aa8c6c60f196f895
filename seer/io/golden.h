#pragma once
// For tests only: the files of golden vectors that lie beside the repository, where they are there.

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "seer/base/error.h"
#include "seer/io/safetensors.h"

namespace seer::io {

inline constexpr const char* kNoGolden =
    "no golden vectors: set SEER_GOLDEN to their folder, or put it at ../shared/golden";

class Golden {
 public:
  // Null where the folder is not there: the test skips with kNoGolden.
  static std::unique_ptr<Golden> open(const std::string& name) {
    const char* given = std::getenv("SEER_GOLDEN");
    const std::filesystem::path folder =
        given != nullptr ? given : SEER_SOURCE_DIR "/../shared/golden";
    if (!std::filesystem::is_directory(folder)) return nullptr;
    return std::unique_ptr<Golden>(new Golden(folder / (name + ".safetensors")));
  }

  // Names before the first '/' that have the tensor `name`: the cases.
  std::vector<std::string> cases(const std::string& tensor) const {
    std::vector<std::string> out;
    for (const auto& [name, record] : file_.tensors()) {
      const size_t slash = name.find('/');
      if (slash != name.npos && name.substr(slash + 1) == tensor)
        out.push_back(name.substr(0, slash));
    }
    SEER_CHECK(!out.empty(), file_.path().string(), " has no case with ", tensor);
    return out;
  }

  bool contains(const std::string& name) const { return file_.contains(name); }
  const std::vector<int64_t>& shape(const std::string& name) const { return file_.at(name).shape; }

  std::vector<float> floats(const std::string& name) const { return read<float>(name, "F32"); }
  std::vector<int32_t> ints(const std::string& name) const { return read<int32_t>(name, "I32"); }
  std::vector<uint8_t> bytes(const std::string& name) const { return read<uint8_t>(name, "U8"); }

  std::string text(const std::string& key) const {
    const auto found = file_.metadata().find(key);
    SEER_CHECK(found != file_.metadata().end(), file_.path().string(), " has no setting ", key);
    return found->second;
  }
  int number(const std::string& key) const { return std::stoi(text(key)); }
  double real(const std::string& key, double otherwise) const {
    const auto found = file_.metadata().find(key);
    return found == file_.metadata().end() ? otherwise : std::stod(found->second);
  }

 private:
  explicit Golden(const std::filesystem::path& path) : file_(path) {}

  template <class T>
  std::vector<T> read(const std::string& name, const char* dtype) const {
    const TensorRecord& record = file_.at(name);
    SEER_CHECK(record.dtype == dtype, name, " is ", record.dtype, ", want ", dtype);
    std::vector<T> out(record.bytes / sizeof(T));
    std::memcpy(out.data(), record.data, record.bytes);
    return out;
  }

  SafetensorsFile file_;
};

}  // namespace seer::io
