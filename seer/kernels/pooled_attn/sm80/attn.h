#pragma once
// Pooled attention for sm_80 and later chips: mma.sync and cp.async.

#include <string>

#include "seer/kernels/pooled_attn/params.h"

namespace seer::kernels {

// Empty, or why this kernel does not take a call whose type, head size and blocks are of those that
// GPU kernels take (pooled_attn.cc).
std::string pooled_attn_sm80_why_not(const PooledAttnParams& p);

// Bytes of workspace with which all multiprocessors work.
int64_t pooled_attn_sm80_workspace(const PooledAttnParams& p, int num_sms);

// Asynchronous on `stream`; the same bits in every run. No allocation, no synchronisation. Error: the
// workspace is too small for one thread block.
void pooled_attn_sm80(const PooledAttnParams& p, void* stream);

}  // namespace seer::kernels
