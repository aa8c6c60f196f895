#pragma once
// The folder of a training run: which settings it has, its metrics, its checkpoints. All that
// happens there survives a kill at any moment.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "seer/base/file_lock.h"

namespace seer::train {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

class RunFolder {
 public:
  // Makes the folder or opens that of a run with the same settings, for this process alone. Error:
  // a run with other settings lies there (names the first difference), another process has it open.
  // `restart`: discards the run that lies there.
  RunFolder(const std::filesystem::path& out, const nlohmann::json& settings, bool restart,
            const std::vector<std::string>& results = {});
  // Opens the folder that another process writes, to read: save() and add_metrics() do nothing.
  // Error: that run has other settings.
  RunFolder(const std::filesystem::path& out, const nlohmann::json& settings);
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  // Copies the last checkpoint into `tensors` and gives its state; none: a new run. Metrics of
  // later steps are cut. Error: tensors of other names or shapes, a damaged file.
  std::optional<nlohmann::json> resume(const NamedTensors& tensors);

  // `state` must hold "step". Metrics are on the disk before the checkpoint is; the last two are
  // kept.
  void save(const NamedTensors& tensors, const nlohmann::json& state);

  // Appends one line to metrics.jsonl.
  void add_metrics(const nlohmann::ordered_json& line);

 private:
  std::vector<std::pair<int64_t, std::filesystem::path>> checkpoints() const;  // by step
  void discard(const std::vector<std::string>& results);
  void check_settings(const nlohmann::json& settings) const;
  void open_metrics(int64_t last_step);

  // A file descriptor that closes itself.
  struct Descriptor {
    int fd = -1;
    ~Descriptor();
  };
  std::filesystem::path out_, checkpoints_;
  std::optional<FileLock> lock_;
  Descriptor metrics_;
  bool writes_ = true;
};

// The first difference of two settings, "loop.steps is 100, was 200"; empty where they are equal.
std::string first_difference(const nlohmann::json& now, const nlohmann::json& before,
                             const std::string& path = "");

}  // namespace seer::train
