#pragma once
// The sm80 forward kernel's instances.

#include "seer/kernels/attention/sm80/config.h"
#include "seer/kernels/block_sparse_attn/params.h"

namespace seer::kernels::sm80 {

template <class Element, int kHeadDim>
struct ForwardConfig : attention::Config<Element, kHeadDim> {
  static constexpr int kBlocksPerSm = kHeadDim == 64 ? 4 : kHeadDim == 96 ? 3 : 2;
  static_assert(attention::fits<typename ForwardConfig::Tiles>(kBlocksPerSm));
};

// Starts the kernel. Instances: seer_instances() in CMakeLists.txt.
template <class Element, int kHeadDim>
void run_forward(const BlockSparseAttnParams& p, void* stream);

}  // namespace seer::kernels::sm80
