#pragma once
// The folder of a training run: which settings it has, its metrics, its checkpoints. All that
// happens there survives a kill at any moment.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "seer/base/descriptor.h"
#include "seer/base/file_lock.h"
#include "seer/train/loop/checkpoint.h"

namespace seer::train {

// Error unless a run of `task` may write to `out`: nothing of what it writes (`results`, metrics,
// checkpoints) lies there, or a run.json of the same task beside it. To be asked before work begins. A result that
// is a folder is that of a run that follows, and is discarded together with this one.
void check_run_folder(const std::filesystem::path& out, const std::string& task,
                      const std::vector<std::string>& results);

// Whether the folder of a run that is over is there.
bool is_run_there(const std::filesystem::path& out);
// Error where it is not, after its result was written: `result`, "the gates are", is there anew.
void check_run_is_there(const std::filesystem::path& out, const std::string& result);

class RunFolder {
 public:
  // Makes the folder or opens that of a run with the same settings, for this process alone.
  // `settings`: an object with "task". Error: as check_run_folder(); a run with other settings lies
  // there (names the first difference); another process has it, or a run that follows, open. `restart`: discards
  // the run that lies there.
  RunFolder(const std::filesystem::path& out, const nlohmann::json& settings, bool restart,
            const std::vector<std::string>& results = {});
  // Opens the folder that another process writes, to read: save() and add_metrics() do nothing.
  // Error: that run has other settings.
  RunFolder(const std::filesystem::path& out, const nlohmann::json& settings);
  RunFolder(const RunFolder&) = delete;
  RunFolder& operator=(const RunFolder&) = delete;

  // Copies the last whole checkpoint of at most `steps` steps into `tensors` and gives its state;
  // none is there: a new run. Metrics of later steps are cut. `warn` gets a line for each damaged
  // checkpoint. Error: there are checkpoints, none of which is whole.
  using Warn = std::function<void(const std::string& line)>;
  std::optional<RunState> resume(const NamedTensors& tensors, int64_t steps, const Warn& warn);

  // Metrics are on the disk before the checkpoint is; the last two are kept. Error: as
  // write_checkpoint(); the folder is no longer there: it is made again, with this checkpoint.
  void save(const NamedTensors& tensors, const RunState& state, const Fetch& fetch);

  // Appends one line to metrics.jsonl.
  void add_metrics(const nlohmann::ordered_json& line);

 private:
  void take_lock();
  void check_settings() const;
  void cut_metrics(int64_t last_step) const;
  void open_metrics();

  std::filesystem::path out_, checkpoints_;
  nlohmann::json settings_;
  std::optional<FileLock> lock_;
  Descriptor metrics_;
  bool writes_ = true;
};

// The first difference of two settings, "loop.steps is 100, was 200"; empty where they are equal.
std::string first_difference(const nlohmann::json& now, const nlohmann::json& before,
                             const std::string& path = "");

}  // namespace seer::train
