#pragma once
// One checkpoint of a run: its tensors and what else a resumed run needs.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace seer::train {

using NamedTensors = std::vector<std::pair<std::string, at::Tensor>>;

struct RunState {
  int64_t step = 0, tokens = 0, skipped_steps = 0, skipped_in_row = 0;
  double loss = 0, seconds = 0;         // the loss may be NaN: that of a step that was left out
  std::map<std::string, double> valid;  // after the last validation
  bool validation_due = false;          // the run was stopped ahead of one
};

// Written atomically, with a checksum over all bytes. `run`: what tells runs apart. Error: a tensor
// holds NaN or an infinite value (nothing is written), or the file cannot be written.
void write_checkpoint(const std::filesystem::path& path, const std::string& run,
                      const NamedTensors& tensors, const RunState& state);

// Reads what was written for this run at `step`. Returns why the file is not to be used, with
// nothing changed: cut, other bytes than were written, another run's, another step's, other tensors,
// NaN. Empty: `tensors` and `state` are as they were.
std::string read_checkpoint(const std::filesystem::path& path, const std::string& run, int64_t step,
                            const NamedTensors& tensors, RunState* state);

}  // namespace seer::train
