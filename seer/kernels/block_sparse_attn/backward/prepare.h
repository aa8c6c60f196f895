#pragma once
// What comes before and after the two kernels that do the products, on every GPU.

#include "seer/kernels/block_sparse_attn/backward/workspace.h"

namespace seer::kernels::backward {

// Fills counters, stats, bits, steps, parts and splits.
void prepare(const BlockSparseAttnBackwardParams& p, const Workspace& w, void* stream);
// Adds up the parts of columns that were split.
void add_parts(const BlockSparseAttnBackwardParams& p, const Workspace& w, void* stream);

}  // namespace seer::kernels::backward
