#pragma once
// The backward on the CPU.

#include "seer/kernels/block_sparse_attn/backward/params.h"

namespace seer::kernels {

// In f32 for every dtype; the same bits in every run and for every number of threads. Error: lists or
// prefix sums that are out of range or in disorder.
void block_sparse_attn_backward_cpu(const BlockSparseAttnBackwardParams& p);

}  // namespace seer::kernels
