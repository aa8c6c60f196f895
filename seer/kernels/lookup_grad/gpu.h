#pragma once
// The gradient on sm_80 and later chips.

#include "seer/kernels/lookup_grad/params.h"

namespace seer::kernels {

// Asynchronous on `stream`; the same bits in every run. No allocation, no synchronisation.
void lookup_grad_sm80(const LookupGradParams& p, void* stream);

}  // namespace seer::kernels
