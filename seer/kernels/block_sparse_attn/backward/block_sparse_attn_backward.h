#pragma once
// Gradients of block-sparse attention: the public call.

#include "seer/kernels/block_sparse_attn/backward/params.h"
#include "seer/kernels/impl.h"

namespace seer::kernels {

// Every implementation, the first choice first.
std::span<const Impl<BlockSparseAttnBackwardParams>> block_sparse_attn_backward_impls();

// Bytes of memory that a call on `device` needs; 0 on the CPU. Depends on sizes only.
int64_t block_sparse_attn_backward_workspace(const BlockSparseAttnBackwardParams& p,
                                             const Device& device);

// Checks the parameters and runs the first implementation that takes them; asynchronous on `stream`
// where `device` is a GPU. Error: what the contract forbids, or every implementation's reason.
void block_sparse_attn_backward(const BlockSparseAttnBackwardParams& p, const Device& device = {},
                                void* stream = nullptr);

}  // namespace seer::kernels
