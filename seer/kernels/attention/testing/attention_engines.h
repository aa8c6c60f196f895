#pragma once
// For tests: every tile engine that this CPU can run for a dtype.

#include <hwy/targets.h>

#include <cstdint>

#include "seer/base/dtype.h"
#include "seer/kernels/cpu_features.h"
#include "seer/kernels/simd/tile_engine.h"

namespace seer::kernels {

// Calls `visit` with the f32 engine of each instruction set, then with the bf16 engine where
// `dtype` may use it.
template <class Visit>
void for_each_engine(DType dtype, const Visit& visit) {
  const int64_t supported = hwy::SupportedTargets();
  for (int64_t targets = supported; targets != 0; targets &= targets - 1) {
    hwy::SetSupportedTargetsForTest(targets & -targets);
    visit(f32_tile_engine());
  }
  hwy::SetSupportedTargetsForTest(0);  // all that the CPU has, again
  const TileEngine& best = tile_engine(dtype, cpu_has_bf16_dot());
  if (&best != &f32_tile_engine()) visit(best);
}

}  // namespace seer::kernels
