#pragma once
// The steps of sparse attention, for whoever measures them, also within the composite op:
// attn_gate_score(), choose_blocks() and block_sparse_attn() of ops.h tell when theirs begins.

#include "seer/torch/ops.h"

namespace seer::torch_ops {

enum class Step { none, score, select, attend };

// Told of the steps of one thread while a StepWatch of that thread lives.
class StepWatcher {
 public:
  virtual ~StepWatcher() = default;
  virtual void enter(Step step) = 0;  // which lasts until the next one
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

// Tells this thread's watcher, if there is one.
void enter_step(Step step);

}  // namespace seer::torch_ops
