#pragma once
// The CPU's entry: all threads of OpenMP, a result that does not depend on their number.

#include "seer/kernels/lookup_grad/params.h"

namespace seer::kernels {

void lookup_grad_cpu(const LookupGradParams& p);

}  // namespace seer::kernels
