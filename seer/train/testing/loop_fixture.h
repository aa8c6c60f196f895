#pragma once
// For tests of the loop: runs of a parabola in a folder that goes away.

#include <filesystem>
#include <string>

#include "seer/base/error.h"
#include "seer/train/testing/quadratic_task.h"
#include "seer/train/testing/run_fixture.h"

namespace seer::train {

class LoopTest : public RunTest {
 protected:
  LoopSettings settings(const std::string& name, int64_t steps = 40) const {
    LoopSettings settings;
    settings.out = folder / name;
    settings.steps = steps;
    settings.save_every = 7;
    settings.valid_every = 10;
    settings.show_progress = false;
    return settings;
  }
  std::string error_of(Task& task, const LoopSettings& settings) {
    try {
      run(task, settings);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
};

inline bool same_bits(const QuadraticTask& a, const QuadraticTask& b) {
  return at::equal(a.vector(), b.vector()) && at::equal(a.matrix(), b.matrix());
}

}  // namespace seer::train
