#pragma once
// The GPU kernels, for Hopper (sm_90a: wgmma and bulk tensor copies) and for everything from sm_80 on
// (mma.sync and cp.async).

#include <string>

#include "seer/kernels/pooled_attn/params.h"

namespace seer::kernels {

// Empty, or why a kernel does not take a call whose type, head size and blocks are of those that GPU
// kernels take (pooled_attn.cc).
std::string pooled_attn_sm90_why_not(const PooledAttnParams& p);
std::string pooled_attn_sm80_why_not(const PooledAttnParams& p);

// Bytes of workspace with which all multiprocessors work.
int64_t pooled_attn_sm90_workspace(const PooledAttnParams& p, int num_sms);
int64_t pooled_attn_sm80_workspace(const PooledAttnParams& p, int num_sms);

// Asynchronous on `stream`; the same bits in every run, and for every workspace. No allocation, no
// synchronisation. Error: the workspace is too small for one thread block (sm90: than three KiB).
void pooled_attn_sm90(const PooledAttnParams& p, void* stream);
void pooled_attn_sm80(const PooledAttnParams& p, void* stream);

}  // namespace seer::kernels
