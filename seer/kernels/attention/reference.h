#pragma once
// Attention of one query in double: what the ops' references have in common.

#include <vector>

#include "seer/kernels/attention/params.h"

namespace seer::kernels {

// Writes o (unless null) and lse of a query token of one head that sees these tokens of k and v; its softmax
// weights.
std::vector<double> attend_reference(const PackedAttentionParams& p, int64_t token, int head,
                                     const std::vector<int64_t>& keys);

}  // namespace seer::kernels
