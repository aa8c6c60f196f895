#pragma once
// Tensor maps: how the copy engine of sm_90 finds the tiles of a packed [tokens, heads, D] tensor.
// For .cu files.

#include <cuda.h>

#include "seer/base/dtype.h"
#include "seer/kernels/strided.h"

namespace seer::kernels {

// Boxes of `rows` tokens (at most 256) and `row_bytes` of one head (128: 64 columns, of f32 32; or 64), in
// the swizzle of so many bytes; zeros outside of the tensor. Addresses and strides are multiples of 16
// bytes (alignment.h). Error: the driver is too old, or refuses the strides.
CUtensorMap tensor_map(const StridedIn& x, int64_t tokens, int heads, int head_dim, DType dtype,
                       int rows = 64, int row_bytes = 128);

}  // namespace seer::kernels
