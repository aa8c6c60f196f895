#pragma once
// The CPU's entry: all threads of OpenMP, a result that does not depend on their number.

#include "seer/kernels/block_select/params.h"

namespace seer::kernels {

void block_select_cpu(const BlockSelectParams& p);

}  // namespace seer::kernels
