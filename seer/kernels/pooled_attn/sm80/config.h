#pragma once
// Sizes of the sm80 kernel, for one element type and head size, and its part of the workspace.

#include "seer/kernels/attention/sm80/config.h"
#include "seer/kernels/pooled_attn/params.h"

namespace seer::kernels::pooled_sm80 {

constexpr int blocks_per_sm(int head_dim) {
  return head_dim <= 64 ? 3 : 2;
}

// Bytes of a thread block's maxima: one for every query and step of the longest sequence.
inline int64_t slot_bytes(const PooledAttnParams& p) {
  return p.num_blocks * (p.block_k / attention::step_keys(p.head_dim)) * attention::kQueries *
         int64_t{sizeof(float)};
}

// Bytes of the row that takes the place of an output which the call does not have.
inline int64_t row_bytes(const PooledAttnParams& p) {
  return p.o.data ? 0 : p.head_dim * int64_t{2};
}

template <class Element, int kHeadDim>
struct Config : attention::Config<Element, kHeadDim> {
  static constexpr int kBlocksPerSm = blocks_per_sm(kHeadDim);
  struct Smem {
    typename Config::Tiles tiles;
    alignas(16) float lse[attention::kQueries];
  };
  static_assert(attention::fits<Smem>(kBlocksPerSm));
};

}  // namespace seer::kernels::pooled_sm80
