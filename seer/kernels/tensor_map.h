#pragma once
// Tensor maps: how the copy engine of sm_90 finds the tiles of a packed [tokens, heads, D] tensor.
// For .cu files.

#include <cuda.h>

#include <string>

#include "seer/base/dtype.h"
#include "seer/kernels/strided.h"

namespace seer::kernels {

// Boxes of 64 tokens and 64 columns of one head, in the 128-byte swizzle; zeros outside of the
// tensor. f16 and bf16. Error: the driver is too old, or refuses the strides.
CUtensorMap tensor_map(const StridedIn& x, int64_t tokens, int heads, int head_dim, DType dtype);

// Empty, or what the copy engine does not take: addresses and strides are multiples of 16 bytes.
std::string tensor_map_why_not(const char* name, const StridedIn& x, int64_t tokens, int heads);

}  // namespace seer::kernels
