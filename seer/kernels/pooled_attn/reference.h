#pragma once
// Pooled attention in plain double loops: what every implementation is tested against.

#include "seer/kernels/pooled_attn/params.h"

namespace seer::kernels {

void pooled_attn_reference(const PooledAttnParams& p);

}  // namespace seer::kernels
