#pragma once
// Attention of the newest tokens on sm_80 and later chips: mma.sync and cp.async.

#include <string>

#include "seer/kernels/decode_attn/params.h"

namespace seer::kernels {

// Empty, or why this kernel does not take a call whose type and head size it takes.
std::string decode_attn_sm80_why_not(const DecodeAttnParams& p);

// Asynchronous on `stream`; the same bits in every run. No allocation, no synchronisation.
void decode_attn_sm80(const DecodeAttnParams& p, void* stream);

}  // namespace seer::kernels
