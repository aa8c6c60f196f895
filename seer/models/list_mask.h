#pragma once
// Lists of blocks as a mask.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "seer/torch/ops.h"

namespace seer::models {

// bool [L, R, N], on the lists' device: whether a row's list names the block.
at::Tensor mask_of(const torch_ops::BlockLists& lists, int64_t num_blocks);

}  // namespace seer::models
