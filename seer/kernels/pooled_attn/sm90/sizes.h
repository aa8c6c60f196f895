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

// Steps whose maxima are kept until the tile ends, at most: 704 KiB a thread block, 95 MB for an H100.
// The scores of a longer row's first steps (beyond 90112 keys) are computed a second time.
constexpr int kMostKeptSteps = 704;

// Maxima of a step: one for every query and 64 keys.
constexpr int kStepMaxima = kKeys / kRow * kRow;
constexpr int64_t kStepBytes = kConsumers * kStepMaxima * int64_t{sizeof(float)};

constexpr int64_t longest_row_steps(const PooledAttnParams& p) {
  return (p.num_blocks * p.block_k + kKeys - 1) / kKeys;
}

}  // namespace seer::kernels::pooled_sm90
