#pragma once
// How many steps a chain of tokenizer.json may have, Sequences in Sequences counted.

#include "seer/base/error.h"
#include "seer/base/json.h"
#include "seer/base/limits.h"

namespace seer::io {

class StepCount {
 public:
  // Error: `step` is one too many.
  void add(const JsonNode& step) {
    SEER_CHECK(++count_ <= limits::kTokenizerSteps, step.where(), " is step ", count_,
               " of a chain, which may have ", limits::kTokenizerSteps,
               "; the file is damaged or hostile");
  }

 private:
  size_t count_ = 0;
};

}  // namespace seer::io
