#pragma once
// Loss of a gate and its gradient on sm_80 and later chips.

#include "seer/kernels/gate_loss/params.h"

namespace seer::kernels {

// Asynchronous on `stream`; the same bits in every run. No allocation, no synchronisation.
void gate_loss_sm80(const GateLossParams& p, void* stream);

}  // namespace seer::kernels
