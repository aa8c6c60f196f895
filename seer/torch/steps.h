#pragma once
// The steps of sparse attention, for whoever measures them: those within a composite op, too.

#include "seer/torch/ops.h"

namespace seer::torch_ops {

enum class Step { score, select, attend };

// Told of the steps of one thread while a StepWatch of that thread lives.
class StepWatcher {
 public:
  virtual ~StepWatcher() = default;
  virtual void begin(Step step) = 0;
  virtual void end(Step step) = 0;
  // The lists that a layer's attention is computed by, `visible` blocks of which dense attention computes:
  // pairs (head, row, key block) of which some query sees some key.
  virtual void chose(const BlockLists& lists, double visible) = 0;

  static StepWatcher* current();  // null: nobody watches
};

class StepWatch {
 public:
  explicit StepWatch(StepWatcher& watcher);
  ~StepWatch();
  StepWatch(const StepWatch&) = delete;
  StepWatch& operator=(const StepWatch&) = delete;

 private:
  StepWatcher* before_;
};

// A step from here to the end of its life.
class StepSpan {
 public:
  explicit StepSpan(Step step) : step_(step), watcher_(StepWatcher::current()) {
    if (watcher_ != nullptr) watcher_->begin(step_);
  }
  ~StepSpan() {
    if (watcher_ != nullptr) watcher_->end(step_);
  }
  StepSpan(const StepSpan&) = delete;
  StepSpan& operator=(const StepSpan&) = delete;

 private:
  Step step_;
  StepWatcher* watcher_;
};

}  // namespace seer::torch_ops
