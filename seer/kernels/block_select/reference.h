#pragma once
// The choice of blocks from its definition: visibility token by token, whole sorts, double.

#include <vector>

#include "seer/kernels/block_select/params.h"

namespace seer::kernels::reference {

// 1 where head, row and key block are chosen: [L, R, N]. Nothing is written to p.
std::vector<char> block_select(const BlockSelectParams& p);

}  // namespace seer::kernels::reference
