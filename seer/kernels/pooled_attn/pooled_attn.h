#pragma once
// Dense attention with the block max-pooled attention map: the public call.

#include "seer/kernels/impl.h"
#include "seer/kernels/pooled_attn/params.h"

namespace seer::kernels {

// Every implementation, the first choice first.
std::span<const Impl<PooledAttnParams>> pooled_attn_impls();

// Bytes of workspace that the first implementation that takes the call wants, for all of the device's
// multiprocessors; 0 on the CPU. It may be given less (down to one thread block's share) or more.
// Error: as of pooled_attn().
int64_t pooled_attn_workspace(const PooledAttnParams& p, const Device& device);

// Checks the parameters and runs the first implementation that takes them; asynchronous on `stream`
// where `device` is a GPU. Error: what the contract forbids, or every implementation's reason.
void pooled_attn(const PooledAttnParams& p, const Device& device = {}, void* stream = nullptr);

}  // namespace seer::kernels
