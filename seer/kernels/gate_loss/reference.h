#pragma once
// The loss as plain loops in double, on scores that a finite difference may move.

#include <vector>

#include "seer/kernels/gate_loss/params.h"

namespace seer::kernels::reference {

// `scores` [H, R, N] is read instead of p.scores; nothing is written to p.
double gate_loss(const GateLossParams& p, const std::vector<double>& scores);

}  // namespace seer::kernels::reference
