#pragma once
// Sizes of the sm80 forward, for one element type and head size.

#include "seer/kernels/attention/sm80/config.h"
#include "seer/kernels/block_sparse_attn/params.h"

namespace seer::kernels::sm80 {

template <class Element, int kHeadDim>
struct ForwardConfig : attention::Config<Element, kHeadDim> {
  static constexpr int kBlocksPerSm = kHeadDim == 64 ? 4 : kHeadDim == 96 ? 3 : 2;
  static_assert(attention::fits<typename ForwardConfig::Tiles>(kBlocksPerSm));
};

}  // namespace seer::kernels::sm80
