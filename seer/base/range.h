#pragma once
// Ranges of settings. NaN is in none of them.

#include "seer/base/error.h"

namespace seer {

// UsageError unless lo <= value <= hi.
template <class T>
void check_range(const char* name, T value, T lo, T hi) {
  if (!(value >= lo && value <= hi)) {
    throw UsageError(message(name, " is ", value, ", want ", lo, " to ", hi));
  }
}

// UsageError unless lo <= value < end.
inline void check_below(const char* name, double value, double lo, double end) {
  if (!(value >= lo && value < end)) {
    throw UsageError(message(name, " is ", value, ", want ", lo, " or more and less than ", end));
  }
}

// UsageError unless 0 < value <= hi.
inline void check_positive(const char* name, double value, double hi) {
  if (!(value > 0 && value <= hi)) {
    throw UsageError(message(name, " is ", value, ", want more than 0, at most ", hi));
  }
}

}  // namespace seer
