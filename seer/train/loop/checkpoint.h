#pragma once
// One checkpoint of a run: its tensors and what else a resumed run needs.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace seer::train {

// f32. One on the meta device is in another process.
using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

struct RunState {
  int64_t step = 0, tokens = 0, skipped_steps = 0, skipped_in_row = 0;
  double loss = 0, seconds = 0;         // the loss may be NaN: that of a step that was left out
  std::map<std::string, double> valid;  // after the last validation
  bool validation_due = false;          // the run was stopped ahead of one
};

// Written atomically, with a checksum over all bytes, one tensor after another as `fetch` (null: the tensors
// themselves) gives them, so that they are never together in host memory. `run`: what tells runs apart.
// Error: a tensor holds NaN or an infinite value, or the file cannot be written; nothing is left of it.
using Fetch = std::function<at::Tensor(size_t i)>;
void write_checkpoint(const std::filesystem::path& path, const std::string& run,
                      const NamedTensors& tensors, const RunState& state,
                      const Fetch& fetch = nullptr);

// Reads what was written for this run at `step`. Returns why the file is not to be used, with
// nothing changed: cut, other bytes than were written, another run's, another step's, other tensors,
// NaN. Empty: `tensors` (of this process) and `state` are as they were.
std::string read_checkpoint(const std::filesystem::path& path, const std::string& run, int64_t step,
                            const NamedTensors& tensors, RunState* state);

}  // namespace seer::train
