#pragma once
// For methods that compute scores by plain tensor operations, on the input's device.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "seer/models/attention.h"
#include "seer/torch/ops.h"

namespace seer::models {

// Entries of the largest intermediate tensor (256 MiB of f32): what needs more is computed in pieces.
inline constexpr int64_t kScoreEntries = int64_t{1} << 26;

// q [t, Hq, D], k [s, Hk, D] of one type -> [Hq, t, s] f32: products of each query head with its key head.
at::Tensor head_products(const at::Tensor& q, const at::Tensor& k);

// A sequence of a pass by itself. Its first query begins a key block.
struct OneSequence {
  at::Tensor q, k;           // [t, Hq, D], [s, Hk, D], after RoPE
  int64_t rows, blocks;      // query blocks, key blocks
  int64_t first;             // the key block in which the first row lies
  int64_t row_at, block_at;  // where its rows and its key blocks begin among those of all sequences
};
// score(sequence) -> [H, rows, blocks] f32, which may be written to, of each sequence that has queries; together
// [H, R, N], -inf where no key of the block is visible.
using ScoreSequence = std::function<at::Tensor(const OneSequence& sequence)>;
at::Tensor scores_by_sequence(const AttentionInput& input, const torch_ops::Ragged& ragged,
                              const ScoreSequence& score);
// score(row, rows, blocks) -> [H, rows, blocks] of some rows and the key blocks that the last of them sees;
// together [H, rows, blocks] of the sequence. `entries`: of what is computed for a row that sees all.
using ScoreRows = std::function<at::Tensor(int64_t row, int64_t rows, int64_t blocks)>;
at::Tensor scores_in_pieces(const OneSequence& sequence, int64_t entries, const ScoreRows& score);

// Means of q and k over blocks, [R, Hq, D] and [K, Hk, D] f32, K the key blocks of all sequences.
struct BlockMeans {
  at::Tensor q, k;
};
BlockMeans block_means(const AttentionInput& input, const torch_ops::Ragged& ragged);
// Their products times `scale`, [Hq, R, N] f32, -inf where masked.
at::Tensor mean_scores(const BlockMeans& means, const torch_ops::Ragged& ragged, double scale);

// Lists of the blocks of which `chosen` [L, R, N] is true, and of those that `selection` forces, whatever its
// rule. Every row has chosen its own block.
torch_ops::BlockLists lists_of(const at::Tensor& chosen, const torch_ops::Ragged& ragged,
                               torch_ops::Selection selection);

}  // namespace seer::models
