#pragma once
// The training loop: steps, their distribution over ranks, accumulation, clipping, schedule, metrics,
// checkpoints, resume. It knows no task: language models and gates are trained by the same code.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include "seer/base/allowed.h"
#include "seer/base/limits.h"
#include "seer/train/loop/task.h"
#include "seer/train/ranks/ranks.h"

namespace seer::train {

struct LoopSettings {
  // Folder of the run: run.json (settings), metrics.jsonl, checkpoints/. A run whose settings are
  // those of run.json goes on from the last checkpoint.
  std::filesystem::path out;
  bool keeps = true;  // false: nothing is written, `out` is not looked at
  int64_t steps = 500;
  bool or_none = false;      // steps may be 0: what the task begins with is validated and saved
  double clip = 1.0;         // largest global norm of the gradient; 0: no clipping
  int64_t save_every = 500;  // steps between checkpoints; the last two are kept
  int64_t valid_every = 0;   // steps between validations; 0: after the last step only
  bool restart = false;      // discard the run that lies in `out`, but not what torchrun restarts
  // How a run that was stopped goes on, for the line that says so.
  std::string go_on = "the same command";
  bool show_progress = true;
  // Is called before every step and after the last with the number of steps so far; may wait for the device.
  std::function<void(int64_t step)> on_step;
  // f32 master weights and optimizer states are in host memory, and the optimizer steps there. That is none
  // of what a run is known by: it may go on without.
  bool states_on_host = false;
  // The processes that share the micro-batches of a step; null: this one alone. The first one writes
  // the folder, which all must see.
  Ranks* ranks = nullptr;
  bool is_first() const { return !ranks || ranks->is_first(); }
  bool writes() const { return keeps && is_first(); }
};

template <class Visit>
void each_setting(LoopSettings& s, const Visit& visit) {
  visit("steps", s.steps, range(1, limits::kSteps), "optimizer steps");
  visit("clip", s.clip, range(0, 1e9), "largest norm of the gradient; 0: no clipping");
  visit("save-every", s.save_every, range(1, limits::kSteps), "steps between checkpoints");
  visit("valid-every", s.valid_every, range(0, limits::kSteps),
        "steps between validations; 0: at the end");
  visit("restart", s.restart, {}, "discard the run that lies in --out");
}
// UsageError where a value is not allowed.
void check(const LoopSettings& settings);

struct RunResult {
  int64_t steps = 0, resumed_from = 0, tokens = 0, skipped_steps = 0;
  int64_t skipped_documents = 0;        // of the training and held-out texts; the task's to fill in
  double seconds = 0;                   // of all parts of the run
  double loss = 0;                      // of the last step
  std::map<std::string, double> valid;  // after the last step
};

// What run.json holds of a run of this task.
nlohmann::json run_settings(const std::string& task, const nlohmann::json& settings,
                            const LoopSettings& loop);

// Runs or resumes. A step whose loss or gradient is not finite is left out and reported. SIGINT and
// SIGTERM end the run after the present step, in all processes, with a checkpoint and Interrupted; after the last step
// InterruptGuard::answer() is for the caller, if it has a guard.
// Error: ten steps left out in a row, or all; weights that are not finite; other settings than the
// run in `out` has; another process writes there; what lies there is no such run; disk full.
RunResult run(Task& task, const LoopSettings& settings);
// For InterruptGuard::answer() of a caller that has saved its result ("the model is"); "" where this process says nothing.
std::string stopped_when_done(const std::string& task, const LoopSettings& settings,
                              const std::string& result);

}  // namespace seer::train
