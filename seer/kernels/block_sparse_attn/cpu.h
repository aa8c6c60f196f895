#pragma once
// Block-sparse attention on the CPU.

#include <string>

#include "seer/kernels/block_sparse_attn/params.h"
#include "seer/kernels/simd/tile_engine.h"

namespace seer::kernels {

// Empty, or why the CPU does not take this call.
std::string block_sparse_attn_cpu_why_not(const BlockSparseAttnParams& p);

// The same bits in every run and for every number of threads. Error: lists or prefix sums that are
// out of range or in disorder.
void block_sparse_attn_cpu(const BlockSparseAttnParams& p, const TileEngine& engine);

}  // namespace seer::kernels
