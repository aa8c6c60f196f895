#pragma once
// The instances of the sm90 backward. Instances: CMakeLists.txt.

#include "seer/kernels/attention/instance.h"
#include "seer/kernels/block_sparse_attn/backward/workspace.h"

namespace seer::kernels::sm90 {

// The two kernels that do the products; `w` is prepared.
template <class Element, int kHeadDim>
void run_block_sparse_backward(const BlockSparseAttnBackwardParams& p,
                               const kernels::backward::Workspace& w, void* stream);

}  // namespace seer::kernels::sm90
