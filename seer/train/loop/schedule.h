#pragma once
// Learning-rate schedules: a factor of the learning rate for every step.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

#include "seer/base/allowed.h"
#include "seer/base/limits.h"

namespace seer::train {

// Linear warm-up (the first of n steps already moves: 1/n), then
//   cosine: from 1 to `floor` along half a cosine;
//   linear: 1 until `constant_share` of all steps, then a straight line to `floor`.
struct Schedule {
  enum class Form { cosine, linear };
  Form form = Form::cosine;
  int64_t warmup = -1;        // steps; -1: warmup_steps() chooses
  double constant_share = 0;  // of all steps; linear only
  double floor = 0;           // factor that the last step comes close to
  int64_t usual_warmup = 20;  // steps, where none are given and the run is long enough
};

// The steps of warm-up among `steps`. Where none are given: the usual ones, but at most a sixth of
// the run, or a short one would end at the peak.
inline int64_t warmup_steps(const Schedule& schedule, int64_t steps) {
  if (schedule.warmup >= 0) return schedule.warmup;
  return std::min(schedule.usual_warmup, (steps + 5) / 6);
}

// The factor of step 0 <= `step` < `steps`.
inline double factor(const Schedule& schedule, int64_t step, int64_t steps) {
  const auto at = static_cast<double>(step), end = static_cast<double>(steps);
  const auto warmup = static_cast<double>(warmup_steps(schedule, steps));
  const double rise = at < warmup ? (at + 1) / warmup : 1;
  const bool is_cosine = schedule.form == Schedule::Form::cosine;
  const double begin = is_cosine ? warmup : std::max(warmup, schedule.constant_share * end);
  if (at <= begin || end <= begin) return rise;
  const double share = (at - begin) / (end - begin);
  const double fall = is_cosine ? (1 + std::cos(std::numbers::pi * share)) / 2 : 1 - share;
  return schedule.floor + (1 - schedule.floor) * fall;
}

inline Allowed warmup_range() {
  return or_automatic(range(0, limits::kSteps), -1);
}
// UsageError where a value is not allowed.
inline void check(const Schedule& schedule) {
  const CheckSetting check;
  check("warmup", schedule.warmup, warmup_range());
  check("constant_share", schedule.constant_share, range(0, 1));
  check("final share of the learning rate", schedule.floor, range(0, 1));
}

}  // namespace seer::train
