#pragma once
// The backward on GPUs. Asynchronous on `stream`, no allocation, no synchronisation; the same bits in
// every run. For calls that block_sparse_attn_backward.cc lets through.

#include "seer/kernels/block_sparse_attn/backward/params.h"

namespace seer::kernels {

void block_sparse_attn_backward_sm90(const BlockSparseAttnBackwardParams& p, void* stream);
void block_sparse_attn_backward_sm80(const BlockSparseAttnBackwardParams& p, void* stream);

}  // namespace seer::kernels
