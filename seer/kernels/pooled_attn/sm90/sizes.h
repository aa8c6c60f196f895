#pragma once
// Sizes that the kernel and its workspace share.

#include <cstdint>

#include "seer/kernels/pooled_attn/params.h"

namespace seer::kernels::pooled_sm90 {

constexpr int kConsumers = 2;                // warpgroups that compute, 64 queries each
constexpr int kRow = 64;                     // queries of a consumer, keys of a maximum
constexpr int kQueries = kConsumers * kRow;  // of a thread block
constexpr int kKeys = 128;                   // of a step
constexpr int kThreads = (kConsumers + 1) * 128;

constexpr int64_t kCounterBytes = 256;  // at the workspace's start: places taken so far

// Maxima of a consumer: one for every query and 64 keys of the longest sequence.
constexpr int64_t maxima_per_consumer(const PooledAttnParams& p) {
  const int64_t steps = (p.num_blocks * p.block_k + kKeys - 1) / kKeys;
  return steps * (kKeys / kRow) * kRow;
}
constexpr int64_t slot_bytes(const PooledAttnParams& p) {
  return kConsumers * maxima_per_consumer(p) * int64_t{sizeof(float)};
}

}  // namespace seer::kernels::pooled_sm90
