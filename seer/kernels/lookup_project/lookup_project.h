#pragma once
// The public entry of lookup_project, and its implementations.

#include "seer/kernels/impl.h"
#include "seer/kernels/lookup_project/params.h"

namespace seer::kernels {

// For GPUs alone; elsewhere products are the library's.
std::span<const Impl<LookupProjectParams>> lookup_project_impls();

// Whether an implementation takes the call.
bool takes_lookup_project(const LookupProjectParams& p, const Device& device);

// Error: no implementation takes the call. Asynchronous, without allocation; the same bits in every run.
void lookup_project(const LookupProjectParams& p, const Device& device, void* stream);

}  // namespace seer::kernels
