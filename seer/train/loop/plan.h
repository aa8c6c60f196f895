#pragma once
// What a run will take, said before its first step.

#include <cstdint>
#include <string>
#include <vector>

namespace seer::train {

// Of one process, as far as it can be told beforehand.
struct Plan {
  std::string step;  // "16 sequences of 65536 tokens"
  // Bytes, estimated: 0 for what there is not.
  double weights = 0;      // of the model, not trained
  double trained = 0;      // what is trained, its gradient, the optimizer's state
  double activations = 0;  // of a micro-batch
  double maps = 0;         // attention maps and scores of blocks
  double on_host = 0;      // of what is trained, in host memory
  std::string warning;     // a line of its own; empty: none
};

// A line each: tokens, memory, the warning. `task` begins them.
std::vector<std::string> plan_lines(const std::string& task, const Plan& plan, int64_t steps,
                                    int64_t tokens_per_step);

// "distill: about 49 min a step, 17 d 03 h for 500 steps".
std::string time_line(const std::string& task, double seconds_per_step, int64_t steps);

}  // namespace seer::train
