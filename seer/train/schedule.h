#pragma once
// Learning-rate schedules: a factor of the learning rate for every step.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>

namespace seer::train {

// Linear warm-up over `warmup` steps (the first step already moves: 1/warmup), then
//   cosine: from 1 to `floor` along half a cosine;
//   linear: 1 until `constant_share` of all steps, then a straight line to `floor`.
struct Schedule {
  enum class Form { cosine, linear };
  Form form = Form::cosine;
  int64_t warmup = 20;        // steps
  double constant_share = 0;  // of all steps; linear only
  double floor = 0;           // factor that the last step comes close to
};

// The factor of step 0 <= `step` < `steps`.
inline double factor(const Schedule& schedule, int64_t step, int64_t steps) {
  const auto at = static_cast<double>(step), end = static_cast<double>(steps);
  const auto warmup = static_cast<double>(schedule.warmup);
  const double rise = step < schedule.warmup ? (at + 1) / warmup : 1;
  const bool is_cosine = schedule.form == Schedule::Form::cosine;
  const double begin = is_cosine ? warmup : std::max(warmup, schedule.constant_share * end);
  if (at <= begin || end <= begin) return rise;
  const double share = (at - begin) / (end - begin);
  const double fall = is_cosine ? (1 + std::cos(std::numbers::pi * share)) / 2 : 1 - share;
  return schedule.floor + (1 - schedule.floor) * fall;
}

}  // namespace seer::train
