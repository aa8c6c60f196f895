#pragma once
// Lists of blocks as a mask.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "seer/torch/ops.h"

namespace seer::models {

// Of one head, bool [R, N], on the lists' device: whether a row's list names the block. Indices on the way take 8 bytes
// a place, which of all heads together were more than their map.
at::Tensor mask_of(const torch_ops::BlockLists& lists, int64_t head, int64_t num_blocks);

}  // namespace seer::models
