#pragma once
// What the dispatcher sees of the kernel. Instances: seer_instances() in the root CMakeLists.txt.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "seer/kernels/block_sparse_attn/params.h"

namespace seer::kernels::sm90 {

using bf16 = __nv_bfloat16;
using f16 = __half;

template <class Element, int kHeadDim>
void run_block_sparse_fwd(const BlockSparseAttnParams& p, void* stream);

// Puts the pieces' results together where lists were cut (p.num_parts > 1).
void combine_parts(const BlockSparseAttnParams& p, void* stream);

}  // namespace seer::kernels::sm90
