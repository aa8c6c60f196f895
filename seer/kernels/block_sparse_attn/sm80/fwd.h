#pragma once
// Block-sparse attention forward for sm_80 and later chips: mma.sync and cp.async.

#include <string>

#include "seer/kernels/block_sparse_attn/params.h"

namespace seer::kernels {

// Empty, or why this kernel does not take a call whose type, head size and blocks every GPU kernel
// takes (block_sparse_attn.cc).
std::string block_sparse_attn_sm80_why_not(const BlockSparseAttnParams& p);

// Asynchronous on `stream`; the same bits in every run. No allocation, no synchronisation.
void block_sparse_attn_sm80(const BlockSparseAttnParams& p, void* stream);

}  // namespace seer::kernels
