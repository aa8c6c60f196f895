#pragma once
// Block-sparse attention, prefill: the public call.

#include "seer/kernels/block_sparse_attn/params.h"
#include "seer/kernels/impl.h"

namespace seer::kernels {

// Every implementation, the first choice first.
std::span<const Impl<BlockSparseAttnParams>> block_sparse_attn_impls();

// Checks the parameters and runs the first implementation that takes them; asynchronous on `stream`
// where `device` is a GPU. Error: what the contract forbids, or every implementation's reason.
void block_sparse_attn(const BlockSparseAttnParams& p, const Device& device = {},
                       void* stream = nullptr);

// Into how many pieces lists should be cut so that all multiprocessors have work where queries are
// few and keys are many (a chunk of a prompt). 1 on the CPU. Depends on sizes only.
int block_sparse_attn_parts(const BlockSparseAttnParams& p, const Device& device);
// Floats that the pieces' results take with p.num_parts of them.
int64_t block_sparse_attn_partials(const BlockSparseAttnParams& p);

}  // namespace seer::kernels
