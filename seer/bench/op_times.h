#pragma once
// Time inside calls of torch's ops, wherever they are made.

#include <ATen/record_function.h>

#include <string>
#include <unordered_map>
#include <vector>

#include "seer/torch/stopwatch.h"

namespace seer::bench {

// A part of the time and what belongs to it: ops ("aten::linear") and scopes of RECORD_USER_SCOPE.
struct OpPart {
  std::string name;
  std::vector<std::string> ops;
};

// Counts the calls of all threads, of which one works at a time, while it lives; there is one such
// object at a time. What is called inside a call that counts belongs to that one.
class OpTimes {
 public:
  OpTimes(const std::vector<OpPart>& parts, const c10::Device& device);
  ~OpTimes();
  OpTimes(const OpTimes&) = delete;
  OpTimes& operator=(const OpTimes&) = delete;

  // Seconds of each part so far, by its name; waits for them.
  std::unordered_map<std::string, double> seconds();

 private:
  std::unordered_map<std::string, torch_ops::Stopwatch> watches_;    // by part
  std::unordered_map<std::string, torch_ops::Stopwatch*> watch_of_;  // by op
  at::CallbackHandle handle_;

  static std::unique_ptr<at::ObserverContext> begin(const at::RecordFunction& call);
};

}  // namespace seer::bench
