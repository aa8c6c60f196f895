#pragma once
// The public entry of lookup_grad, and its implementations.

#include "seer/kernels/impl.h"
#include "seer/kernels/lookup_grad/params.h"

namespace seer::kernels {

std::span<const Impl<LookupGradParams>> lookup_grad_impls();

// Error: wrong sizes, or no implementation takes the call. On a GPU asynchronous, without allocation; the same bits in every run.
void lookup_grad(const LookupGradParams& p, const Device& device = {}, void* stream = nullptr);

}  // namespace seer::kernels
