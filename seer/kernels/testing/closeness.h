#pragma once
// Three measures of how far a result is from its reference, and limits on them.

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>

#include "seer/base/error.h"

namespace seer::kernels {

struct Limits {
  double absolute;  // |x - y| <= absolute * (1 + |y|), everywhere
  double relative;  // |x - y| / |y| of the whole tensor
  double cosine;    // 1 - cosine of the angle between both
};

// Empty when `got` is within the limits of `want` (n numbers each; infinities must be equal, NaN the
// same elements), or what is wrong.
inline std::string far_from(const float* got, const float* want, size_t n, const Limits& limits) {
  double worst = 0, difference = 0, length = 0, got_length = 0, product = 0;
  for (size_t i = 0; i < n; ++i) {
    const double x = got[i], y = want[i];
    if (std::isnan(x) && std::isnan(y)) continue;
    if (std::isinf(y) || std::isinf(x)) {
      if (x != y) return message("element ", i, " is ", x, ", want ", y);
      continue;
    }
    if (!(std::abs(x - y) >= 0)) return message("element ", i, " is ", x, ", want ", y);
    worst = std::max(worst, std::abs(x - y) / (1 + std::abs(y)));
    difference += (x - y) * (x - y);
    length += y * y;
    got_length += x * x;
    product += x * y;
  }
  const double relative = length > 0 ? std::sqrt(difference / length) : std::sqrt(difference);
  const double cosine = length > 0 ? 1 - product / std::sqrt(length * got_length) : 0;
  if (worst <= limits.absolute && relative <= limits.relative && cosine <= limits.cosine) return "";
  return message("error ", worst, " (limit ", limits.absolute, "), relative ", relative, " (limit ",
                 limits.relative, "), 1 - cosine ", cosine, " (limit ", limits.cosine, ")");
}

}  // namespace seer::kernels
