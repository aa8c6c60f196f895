#pragma once
// From scores to block lists; params.h says how blocks are chosen. Errors: a strength outside of
// its rule's range, NaN among the scores, or a device without an implementation.

#include "seer/kernels/block_select/params.h"
#include "seer/kernels/impl.h"

namespace seer::kernels {

// Every implementation, the first choice first.
std::span<const Impl<BlockSelectParams>> block_select_impls();

void block_select(const BlockSelectParams& p, const Device& device, void* stream = nullptr);

// Entries that `list` must have. Reads sizes, rule, strength and forced blocks only: what the host
// knows without the prefix sums. Each row has a place of its own in `list`, so that rows can be
// written in parallel; places are as large as the row can become and not filled up.
int64_t block_select_capacity(const BlockSelectParams& p);

// Bytes of workspace; 0 on the CPU and for rules that need none. Reads what block_select_capacity()
// reads.
int64_t block_select_workspace(const BlockSelectParams& p, const Device& device);

}  // namespace seer::kernels
