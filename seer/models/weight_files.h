#pragma once
// The safetensors files of a model folder: one, or those that an index names.

#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "seer/io/safetensors.h"

namespace seer::models {

// A file that the index names is opened when a tensor is wanted that it may hold, so one that nothing
// needs may be missing.
class WeightFiles {
 public:
  // Error: neither model.safetensors nor an index of several files; what is there is not readable.
  explicit WeightFiles(const std::filesystem::path& folder);

  // The file of a tensor, and its name there.
  struct Place {
    const io::SafetensorsFile* file = nullptr;  // nullptr: nowhere
    std::string name;
  };
  Place find(const std::string& name);
  // The same, also in files that the index names for others. Error: it is nowhere.
  Place need(const std::string& name);

  // Looks at what nobody asked for. Buffers that programs compute anew are passed over; other tensors
  // give a warning. Error: a weight in one of the first `num_layers` layers, which would have been part
  // of the result.
  void check_rest(int64_t num_layers) const;

 private:
  const io::SafetensorsFile& open(const std::filesystem::path& path);
  void read_index();
  void open_all();

  std::filesystem::path folder_, described_by_;
  bool has_index_ = false, are_all_open_ = false;
  std::map<std::string, std::unique_ptr<io::SafetensorsFile>> files_;
  std::map<std::string, std::filesystem::path> file_of_;
  std::set<std::string> used_;
};

}  // namespace seer::models
