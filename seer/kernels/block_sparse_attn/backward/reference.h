#pragma once
// The definition of the backward, for tests: plain loops in double precision.

#include "seer/kernels/block_sparse_attn/backward/params.h"

namespace seer::kernels {

void block_sparse_attn_backward_reference(const BlockSparseAttnBackwardParams& p);

}  // namespace seer::kernels
