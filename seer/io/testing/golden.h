#pragma once
// For tests only: files of golden vectors, inputs and outputs of an op.

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

#include "seer/base/error.h"
#include "seer/io/safetensors.h"

namespace seer::io {

class Golden {
 public:
  // The file `name` of every set there is: the repository's own (tests/golden) and, where they are
  // there, vectors of the published code (SEER_GOLDEN, or shared/golden beside the repository).
  static std::vector<Golden> sets(const std::string& name) {
    const std::filesystem::path repository(SEER_SOURCE_DIR);
    const char* given = std::getenv("SEER_GOLDEN");
    const auto published = given ? std::filesystem::path(given) : repository / "../shared/golden";
    std::vector<Golden> out;
    out.push_back(Golden(repository / "tests" / "golden" / (name + ".safetensors")));
    if (given || std::filesystem::is_directory(published)) {
      out.push_back(Golden(published / (name + ".safetensors")));
    }
    return out;
  }
  const std::string path() const { return file_.path().string(); }

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

  // Of all tensors.
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& [name, record] : file_.tensors()) out.push_back(name);
    return out;
  }
  bool contains(const std::string& name) const { return file_.contains(name); }
  const std::vector<int64_t>& shape(const std::string& name) const { return file_.at(name).shape; }

  std::vector<float> floats(const std::string& name) const { return read<float>(name, "F32"); }
  // A tensor [sequences, heads, rows, ...] as [heads, rows of all sequences, ...].
  std::vector<float> heads_first(const std::string& name) const {
    const std::vector<int64_t>& s = shape(name);
    SEER_CHECK(s.size() >= 3, name, " has ", s.size(), " axes, want sequences, heads, rows");
    const std::vector<float> x = floats(name);
    const int64_t seqs = s[0], heads = s[1], part = static_cast<int64_t>(x.size()) / (seqs * heads);
    std::vector<float> out;
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t b = 0; b < seqs; ++b) {
        const auto from = x.begin() + (b * heads + h) * part;
        out.insert(out.end(), from, from + part);
      }
    }
    return out;
  }
  std::vector<int32_t> ints(const std::string& name) const { return read<int32_t>(name, "I32"); }
  std::vector<uint8_t> bytes(const std::string& name) const { return read<uint8_t>(name, "U8"); }

  std::string text(const std::string& key) const {
    const auto found = file_.metadata().find(key);
    SEER_CHECK(found != file_.metadata().end(), file_.path().string(), " has no setting ", key);
    return found->second;
  }
  bool has_text(const std::string& key) const { return file_.metadata().contains(key); }
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
