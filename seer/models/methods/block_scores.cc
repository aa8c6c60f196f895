#include "seer/models/methods/block_scores.h"

#include <ATen/ops/bmm.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace seer::models {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();
constexpr int64_t kAverage = 4;  // of attn_gate_pool

at::Tensor block_mean(const at::Tensor& x, const at::Tensor& cu, const at::Tensor& cu_blocks,
                      int64_t count, int block) {
  return torch_ops::attn_gate_pool(x.detach(), cu, cu_blocks, count, block, kAverage);
}

}  // namespace

at::Tensor head_products(const at::Tensor& q, const at::Tensor& k) {
  const int64_t t = q.size(0), kv_heads = k.size(1), group = q.size(1) / kv_heads;
  const at::Tensor queries = q.unflatten(1, {kv_heads, group})
                                 .permute({1, 2, 0, 3})
                                 .reshape({kv_heads, group * t, q.size(2)});
  const at::Tensor keys = k.permute({1, 2, 0});
  const bool tensor_cores = q.is_cuda() && q.scalar_type() != at::kFloat;
  const at::Tensor products = tensor_cores ? at::bmm(queries, keys, /*out_dtype=*/at::kFloat)
                                           : at::bmm(queries.to(at::kFloat), keys.to(at::kFloat));
  return products.view({q.size(1), t, k.size(0)});
}

at::Tensor scores_by_sequence(const AttentionInput& input, const torch_ops::Ragged& ragged,
                              const ScoreSequence& score) {
  const auto blocks_of = [&](int64_t tokens) { return (tokens + ragged.block - 1) / ragged.block; };
  std::vector<at::Tensor> parts;
  OneSequence one{};
  int64_t q_at = 0, k_at = 0;
  for (size_t b = 0; b < input.sequences.q_lens.size(); ++b) {
    const int64_t q_len = input.sequences.q_lens[b], k_len = input.sequences.k_lens[b];
    one.q = input.q.narrow(0, q_at, q_len);
    one.k = input.k.narrow(0, k_at, k_len);
    one.rows = blocks_of(q_len);
    one.blocks = blocks_of(k_len);
    one.first = (k_len - q_len) / ragged.block;
    if (q_len > 0) {
      const auto visible = at::TensorOptions(input.q.device()).dtype(at::kBool);
      const at::Tensor future = at::ones({one.rows, one.blocks}, visible).triu_(one.first + 1);
      parts.push_back(at::constant_pad_nd(score(one).masked_fill_(future, kMasked),
                                          {0, ragged.num_blocks - one.blocks}, kMasked));
    }
    q_at += q_len;
    k_at += k_len;
    one.row_at += one.rows;
    one.block_at += one.blocks;
  }
  if (parts.size() == 1) return parts[0];
  if (!parts.empty()) return at::cat(parts, 1);
  return at::empty({input.q.size(1), 0, ragged.num_blocks}, input.q.options().dtype(at::kFloat));
}

at::Tensor scores_in_pieces(const OneSequence& sequence, int64_t entries, const ScoreRows& score) {
  const int64_t step = std::max<int64_t>(1, kScoreEntries / entries);
  std::vector<at::Tensor> parts;
  for (int64_t row = 0; row < sequence.rows; row += step) {
    const int64_t rows = std::min(step, sequence.rows - row);
    const int64_t blocks = sequence.first + row + rows;
    parts.push_back(at::constant_pad_nd(score(row, rows, blocks), {0, sequence.blocks - blocks}));
  }
  return parts.size() == 1 ? parts[0] : at::cat(parts, 1);
}

BlockMeans block_means(const AttentionInput& input, const torch_ops::Ragged& ragged) {
  return {block_mean(input.q, ragged.cu_q, ragged.cu_rows, ragged.num_rows, ragged.block),
          block_mean(input.k, ragged.cu_k, ragged.cu_blocks, ragged.total_blocks, ragged.block)};
}

at::Tensor mean_scores(const BlockMeans& means, const torch_ops::Ragged& ragged, double scale) {
  const double of_op = 1 / std::sqrt(static_cast<double>(means.q.size(2)));
  return torch_ops::attn_gate_score(means.q.mul(scale / of_op), means.k, ragged);
}

torch_ops::BlockLists lists_of(const at::Tensor& chosen, const torch_ops::Ragged& ragged,
                               torch_ops::Selection selection) {
  // Softmax weights: 1 over the chosen blocks of a row, and nothing (e^-100 of that) for the others.
  selection.rule = "threshold";
  selection.strength = {1e-9};
  selection.forced_within = false;
  const at::Tensor scores = at::where(chosen, 0.0f, -100.0f);
  return torch_ops::choose_blocks(scores.to(at::kFloat), ragged, selection);
}

}  // namespace seer::models
