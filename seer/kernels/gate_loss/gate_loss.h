#pragma once
// The distillation loss of one layer's gate and its gradient; params.h says what it is. Sequences
// without a counted row are not part of the average; rows whose target is all zero add nothing. A
// NaN score makes the loss NaN. Errors: sizes that do not fit, or a device without an
// implementation.

#include "seer/kernels/gate_loss/params.h"
#include "seer/kernels/impl.h"

namespace seer::kernels {

// Every implementation, the first choice first.
std::span<const Impl<GateLossParams>> gate_loss_impls();

void gate_loss(const GateLossParams& p, const Device& device, void* stream = nullptr);

}  // namespace seer::kernels
