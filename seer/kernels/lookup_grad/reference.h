#pragma once
// The definition, in double.

#include "seer/kernels/lookup_grad/params.h"

namespace seer::kernels {

void lookup_grad_reference(const LookupGradParams& p);

}  // namespace seer::kernels
