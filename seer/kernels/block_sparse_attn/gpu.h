#pragma once
// The GPU kernels, for Hopper (sm_90a: wgmma and bulk tensor copies) and for everything from sm_80 on
// (mma.sync and cp.async).

#include <string>

#include "seer/kernels/block_sparse_attn/params.h"

namespace seer::kernels {

// Empty, or why a kernel does not take a call whose type, head size and blocks every one takes
// (block_sparse_attn.cc).
std::string block_sparse_attn_sm90_why_not(const BlockSparseAttnParams& p);
std::string block_sparse_attn_sm80_why_not(const BlockSparseAttnParams& p);

// Asynchronous on `stream`; the same bits in every run. No allocation, no synchronisation.
void block_sparse_attn_sm90(const BlockSparseAttnParams& p, void* stream);
void block_sparse_attn_sm80(const BlockSparseAttnParams& p, void* stream);

}  // namespace seer::kernels
