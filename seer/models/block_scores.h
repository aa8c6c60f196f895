#pragma once
// Scores of key blocks without gates: the baselines that gates are measured against, and the
// oracle. All are [H, R, N] f32 as Gates::scores gives them: -inf where no key of the block is
// visible.

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "seer/models/attention.h"
#include "seer/torch/ops.h"

namespace seer::models {

// Pairs of a query block and a key block of which some query sees some key, over all sequences.
int64_t num_visible_blocks(const Sequences& sequences, int block);

// Uniform in [0, 1) by (seed, layer, sequence, head, query block, key block), blocks counted from
// the start of the sequence: a prompt in chunks draws what the whole prompt draws. On the CPU.
at::Tensor random_scores(const Sequences& sequences, int block, int64_t num_heads, int layer,
                         uint64_t seed);

// An order: the first block, then the more recent before the less recent. On the CPU.
at::Tensor streaming_scores(const Sequences& sequences, int block, int64_t num_heads);

// The logarithm of the model's own max-pooled attention map of these queries (SeerAttention, arXiv
// 2410.13276, section 3.2): its softmax is the map with rows that sum to 1.
at::Tensor oracle_scores(const AttentionInput& input, const torch_ops::Ragged& ragged);

}  // namespace seer::models
