#pragma once
// Sizes that the kernel and its workspace share.

#include <cstdint>

#include "seer/kernels/pooled_attn/params.h"

namespace seer::kernels::pooled_sm80 {

constexpr int kQueries = 64;                  // of a thread block
constexpr int kThreads = kQueries / 16 * 32;  // a warp has 16 queries

// With 256 columns the accumulator takes half of the registers, and two thread blocks share an
// A100's multiprocessor only with short tiles of keys and values, one of each.
constexpr int kWidestNarrow = 128;
constexpr int step_keys(int head_dim) {
  return head_dim > kWidestNarrow ? 32 : 64;
}
constexpr int blocks_per_sm(int head_dim) {
  return head_dim == 64 ? 3 : 2;
}

// Bytes of a thread block's maxima: one for every query and step of the longest sequence.
inline int64_t slot_bytes(const PooledAttnParams& p) {
  return p.num_blocks * (p.block_k / step_keys(p.head_dim)) * kQueries * int64_t{sizeof(float)};
}

}  // namespace seer::kernels::pooled_sm80
