#pragma once
// Time inside calls of one torch op, wherever they are made.

#include <ATen/record_function.h>

#include <string>

#include "seer/torch/stopwatch.h"

namespace seer::bench {

// Counts this thread's calls of the op ("aten::linear") while it lives; one at a time. Not for an
// op that calls itself.
class OpStopwatch {
 public:
  OpStopwatch(std::string op, const c10::Device& device);
  ~OpStopwatch();
  OpStopwatch(const OpStopwatch&) = delete;
  OpStopwatch& operator=(const OpStopwatch&) = delete;

  // Of all calls so far; waits for them.
  double seconds() { return watch_.seconds(); }

 private:
  std::string op_;
  torch_ops::Stopwatch watch_;
  at::CallbackHandle handle_;

  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& call);
};

}  // namespace seer::bench
