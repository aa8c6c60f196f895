#pragma once
// Block-sparse attention in plain double loops: what every implementation is tested against.

#include "seer/kernels/block_sparse_attn/params.h"

namespace seer::kernels {

void block_sparse_attn_reference(const BlockSparseAttnParams& p);

}  // namespace seer::kernels
