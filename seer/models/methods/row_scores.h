#pragma once
// Scores that the host computes, for methods that look at positions alone.

#include <ATen/Parallel.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "seer/models/attention.h"

namespace seer::models {

// One query block and how many key blocks, from the first on, some query of it sees.
struct QueryRow {
  int64_t sequence;
  int64_t block;  // from the start of the sequence
  int64_t num_visible;
};
inline std::vector<QueryRow> query_rows(const Sequences& sequences, int block) {
  std::vector<QueryRow> rows;
  for (size_t b = 0; b < sequences.q_lens.size(); ++b) {
    const int64_t q_len = sequences.q_lens[b], offset = sequences.k_lens[b] - q_len;
    for (int64_t begin = 0; begin < q_len; begin += block) {
      const int64_t last_key = offset + std::min(begin + block, q_len) - 1;
      rows.push_back({static_cast<int64_t>(b), (offset + begin) / block, last_key / block + 1});
    }
  }
  return rows;
}

// Pairs of a row and a key block of which some query sees some key, over all sequences.
inline int64_t num_visible_blocks(const Sequences& sequences, int block) {
  int64_t visible = 0;
  for (const QueryRow& row : query_rows(sequences, block)) visible += row.num_visible;
  return visible;
}

// [H, R, N] f32 on the CPU with score(head, row, key block) where visible, -inf elsewhere.
template <class Score>
at::Tensor row_scores(const Sequences& sequences, const torch_ops::Ragged& ragged,
                      int64_t num_heads, const Score& score) {
  const std::vector<QueryRow> rows = query_rows(sequences, ragged.block);
  const int64_t num_rows = ragged.num_rows, num_blocks = ragged.num_blocks;
  at::Tensor scores = at::full({num_heads, num_rows, num_blocks},
                               -std::numeric_limits<float>::infinity(), at::kFloat);
  float* out = scores.mutable_data_ptr<float>();
  at::parallel_for(0, num_heads * num_rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const QueryRow& row = rows[static_cast<size_t>(i % num_rows)];
      for (int64_t j = 0; j < row.num_visible; ++j) {
        out[i * num_blocks + j] = score(i / num_rows, row, j);
      }
    }
  });
  return scores;
}

}  // namespace seer::models
