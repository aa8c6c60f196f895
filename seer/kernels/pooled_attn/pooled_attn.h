#pragma once
// Dense attention with the block max-pooled attention map: the public call.

#include "seer/kernels/impl.h"
#include "seer/kernels/pooled_attn/params.h"

namespace seer::kernels {

// Every implementation, the first choice first.
std::span<const Impl<PooledAttnParams>> pooled_attn_impls();

// Checks the parameters and runs the first implementation that takes them; asynchronous on `stream`
// where `device` is a GPU. Error: what the contract forbids, or every implementation's reason.
void pooled_attn(const PooledAttnParams& p, const Device& device = {}, void* stream = nullptr);

}  // namespace seer::kernels
