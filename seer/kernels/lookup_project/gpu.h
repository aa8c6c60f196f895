#pragma once
// The projections of lookup heads on sm_80 and later chips.

#include "seer/kernels/lookup_project/params.h"

namespace seer::kernels {

// Asynchronous on `stream`; the same bits in every run. No allocation, no synchronisation.
void lookup_project_sm80(const LookupProjectParams& p, void* stream);

}  // namespace seer::kernels
