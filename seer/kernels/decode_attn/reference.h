#pragma once
// Attention of the newest tokens in plain double loops: what every implementation is tested against.

#include "seer/kernels/decode_attn/params.h"

namespace seer::kernels {

void decode_attn_reference(const DecodeAttnParams& p);

}  // namespace seer::kernels
