#pragma once
// Tensor maps: how the copy engine of sm_90 finds the tiles of a packed [tokens, heads, D] tensor.
// For .cu files.

#include <cuda.h>

#include "seer/base/dtype.h"
#include "seer/kernels/strided.h"

namespace seer::kernels {

// Boxes of 64 tokens and 64 columns of one head, in the 128-byte swizzle; zeros outside of the
// tensor. f16 and bf16; addresses and strides are multiples of 16 bytes (alignment.h). Error: the
// driver is too old, or refuses the strides.
CUtensorMap tensor_map(const StridedIn& x, int64_t tokens, int heads, int head_dim, DType dtype);

}  // namespace seer::kernels
