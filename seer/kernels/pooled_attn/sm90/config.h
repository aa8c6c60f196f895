#pragma once
// Sizes of the sm90 kernel and its workspace.

#include "seer/kernels/attention/sm90/dense/config.h"
#include "seer/kernels/pooled_attn/params.h"

namespace seer::kernels::pooled_sm90 {

namespace dense = attention::dense;
using attention::kAllLanes;
using attention::kWarpgroup;
using dense::kConsumers;
using dense::kKeys;
using dense::kRow;

constexpr int64_t kCounterBytes = 256;  // at the workspace's start: places taken so far

// Steps whose maxima are kept until the tile ends, at most: 704 KiB a thread block, 95 MB for an H100.
// The scores of a longer row's first steps (beyond 90112 keys) are computed a second time.
constexpr int kMostKeptSteps = 704;
constexpr int64_t kStepBytes = kConsumers * dense::kStepMaxima * int64_t{sizeof(float)};

constexpr int64_t longest_row_steps(const PooledAttnParams& p) {
  return (p.num_blocks * p.block_k + kKeys - 1) / kKeys;
}

}  // namespace seer::kernels::pooled_sm90
