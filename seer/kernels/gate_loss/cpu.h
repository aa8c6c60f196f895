#pragma once
// The CPU's entry: all threads of OpenMP, a result that does not depend on their number.

#include "seer/kernels/gate_loss/params.h"

namespace seer::kernels {

void gate_loss_cpu(const GateLossParams& p);

}  // namespace seer::kernels
