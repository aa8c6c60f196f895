#pragma once
// The training loop: steps, accumulation, clipping, schedule, metrics, checkpoints, resume. It
// knows no task: language models and gates are trained by the same code.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

#include "seer/train/optimizer.h"
#include "seer/train/plan.h"
#include "seer/train/ranks.h"
#include "seer/train/schedule.h"

namespace seer::train {

struct LoopSettings {
  // Folder of the run: run.json (settings), metrics.jsonl, checkpoints/. A run whose settings are
  // those of run.json goes on from the last checkpoint.
  std::filesystem::path out;
  int64_t steps = 500;
  double clip = 1.0;         // largest global norm of the gradient; 0: no clipping
  int64_t save_every = 500;  // steps between checkpoints; the last two are kept
  int64_t valid_every = 0;   // steps between validations; 0: after the last step only
  bool restart = false;      // discard the run that lies in `out`, but not what torchrun restarts
  // How a run that was stopped goes on, for the line that says so.
  std::string go_on = "the same command";
  bool show_progress = true;
  // The processes that share the micro-batches of a step; null: this one alone. The first one writes
  // the folder, which all must see.
  Ranks* ranks = nullptr;
};

// UsageError where a value is outside of its range.
void check(const LoopSettings& settings);

// Parameters that share an optimizer and a schedule.
struct ParameterGroup {
  std::string name;  // "gate": appears in metrics as lr or lr_<name>
  std::vector<std::pair<std::string, at::Tensor>>
      parameters;  // f32 leaves; names unique in the run
  Rule rule;
  double learning_rate = 1e-3;
  Schedule schedule;
};

// What is trained. Everything that a step does must follow from its number, the parameters and the
// settings alone (draws by seer/base/random.h): a resumed run then ends with the same bits, on the
// same machine with the same number of threads.
class Task {
 public:
  virtual ~Task() = default;
  virtual std::string name() const = 0;  // "pretrain", shown in the progress line
  virtual std::vector<ParameterGroup> groups() = 0;
  // All that decides the result, as an object: compared when a run is resumed.
  virtual nlohmann::json settings() const = 0;

  // What is written into the run's folder when it is over: discarded together with a run.
  virtual std::vector<std::string> files() const { return {}; }

  virtual int64_t micro_batches(int64_t step) const = 0;
  virtual int64_t tokens(int64_t step) const = 0;  // of all micro-batches
  virtual void begin_step(int64_t step) { static_cast<void>(step); }
  // Of this process: what a step is and the memory that it takes.
  virtual Plan plan() const { return {}; }
  // Names of what `backward` returns; the first is "loss".
  virtual std::vector<std::string> metrics() const { return {"loss"}; }
  // Adds the gradient of one micro-batch to the parameters' .grad (defined, zero before the first).
  // Returns its share of the step's metrics, [metrics] on the parameters' device: shares are
  // summed. `complete`: null, or this is this process's last micro-batch of the step, and a
  // parameter may be named as soon as its gradient is complete, so that sums over processes begin
  // while the rest is computed; always in the same order. Those not named are taken at the end.
  using Complete = std::function<void(const at::Tensor& parameter)>;
  virtual at::Tensor backward(int64_t step, int64_t micro_batch, const Complete& complete) = 0;
  // Named results on held-out data; empty: nothing to validate on. Called after the same steps in all
  // processes, which may share the work (validation.h) and must come to the same results.
  virtual std::map<std::string, double> validate(Ranks& ranks) {
    static_cast<void>(ranks);
    return {};
  }

  // Is told which part of a micro-batch, or of a window of validation, is done: `layer` of `layers`.
  using Watch = std::function<void(int64_t layer, int64_t layers)>;
  void watch(Watch watch) { watch_ = std::move(watch); }

 protected:
  void passed(int64_t layer, int64_t layers) const {
    if (watch_) watch_(layer, layers);
  }

 private:
  Watch watch_;
};

struct RunResult {
  int64_t steps = 0, resumed_from = 0, tokens = 0, skipped_steps = 0;
  int64_t skipped_documents = 0;        // of the training and held-out texts; the task's to fill in
  double seconds = 0;                   // of all parts of the run
  double loss = 0;                      // of the last step
  std::map<std::string, double> valid;  // after the last step
};

// Runs or resumes. A step whose loss or gradient is not finite is left out and reported. SIGINT and
// SIGTERM end the run after the present step, in all processes, with a checkpoint and Interrupted.
// Error: ten steps left out in a row, or all; weights that are not finite; other settings than the
// run in `out` has; another process writes there; what lies there is no such run; disk full.
RunResult run(Task& task, const LoopSettings& settings);

}  // namespace seer::train
