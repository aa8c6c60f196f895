#pragma once
// What the loop trains: parameter groups and the gradient of micro-batches.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <vector>

#include "seer/train/loop/parameters.h"
#include "seer/train/loop/plan.h"
#include "seer/train/ranks/ranks.h"

namespace seer::train {

// For Task::settings().
inline nlohmann::json as_json(const AdamW& rule) {
  return {rule.beta1, rule.beta2, rule.eps, rule.weight_decay};
}
inline nlohmann::json as_json(const Schedule& schedule, int64_t steps) {
  return {static_cast<int>(schedule.form), warmup_steps(schedule, steps), schedule.constant_share,
          schedule.floor};
}

// What is trained. Everything that a step does must follow from its number, the parameters and the
// settings alone (draws by seer/base/random.h): a resumed run then ends with the same bits, on the
// same machine with the same number of threads.
class Task {
 public:
  virtual ~Task() = default;
  virtual std::string name() const = 0;  // "pretrain", shown in the progress line
  // Asked once.
  virtual std::vector<ParameterGroup> groups() = 0;
  // All that decides the result, as an object: compared when a run is resumed.
  virtual nlohmann::json settings() const = 0;

  // What is written into the run's folder when it is over, and folders of runs that follow: discarded together with
  // a run.
  virtual std::vector<std::string> files() const { return {}; }

  virtual int64_t micro_batches(int64_t step) const = 0;  // of all processes
  // How many of them backward() takes at once.
  virtual int64_t at_once() const { return 1; }
  virtual int64_t tokens(int64_t step) const = 0;  // of all micro-batches
  // Of this process: what a step is and the memory that it takes.
  virtual Plan plan() const { return {}; }
  // Names of what `backward` returns; the first is "loss".
  virtual std::vector<std::string> metrics() const { return {"loss"}; }
  // Adds the gradient of at most at_once() micro-batches to the leaves' .grad (of f32 ones defined, and
  // zero before the first; others are taken away when they are complete). Returns their share of the
  // step's metrics, [metrics] on the parameters' device: shares are summed. `complete` may be told of
  // leaves as soon as their gradients are complete, so that sums over processes begin while the rest is
  // computed; always in the same order. Those not named are summed at the end.
  using Complete = std::function<void(std::span<const at::Tensor> leaves)>;
  virtual at::Tensor backward(int64_t step, std::span<const int64_t> micro_batches,
                              const Complete& complete) = 0;
  // Named results on held-out data after `steps` steps; empty: nothing to validate on. Called after
  // the same steps in all processes, which share the work (validation.h) and get the same results.
  virtual std::map<std::string, double> validate(int64_t steps, Ranks& ranks) {
    static_cast<void>(steps), static_cast<void>(ranks);
    return {};
  }

  // Is told which part of a call of backward(), or of a window of validation, is done: `layer` of
  // `layers`.
  using Watch = std::function<void(int64_t layer, int64_t layers)>;
  void watch(Watch watch) { watch_ = std::move(watch); }

 protected:
  void passed(int64_t layer, int64_t layers) const {
    if (watch_) watch_(layer, layers);
  }

 private:
  Watch watch_;
};

}  // namespace seer::train
