#include "seer/models/block_scores.h"

#include <ATen/Parallel.h>
#include <ATen/ops/full.h>

#include <algorithm>
#include <limits>

#include "seer/base/error.h"
#include "seer/base/random.h"

namespace seer::models {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

// One query block and how many key blocks, from the first on, some query of it sees.
struct Row {
  int64_t sequence;
  int64_t block;  // from the start of the sequence
  int64_t num_visible;
};

std::vector<Row> rows_of(const Sequences& sequences, int block) {
  std::vector<Row> rows;
  for (size_t b = 0; b < sequences.q_lens.size(); ++b) {
    const int64_t q_len = sequences.q_lens[b], offset = sequences.k_lens[b] - q_len;
    for (int64_t begin = 0; begin < q_len; begin += block) {
      const int64_t last_key = offset + std::min(begin + block, q_len) - 1;
      rows.push_back({static_cast<int64_t>(b), (offset + begin) / block, last_key / block + 1});
    }
  }
  return rows;
}

int64_t longest_in_blocks(const Sequences& sequences, int block) {
  const auto& lens = sequences.k_lens;
  return (*std::max_element(lens.begin(), lens.end()) + block - 1) / block;
}

// [H, R, N] with score(head, row, key block) where visible.
template <class Score>
at::Tensor fill(const Sequences& sequences, int block, int64_t num_heads, const Score& score) {
  const std::vector<Row> rows = rows_of(sequences, block);
  const auto num_rows = static_cast<int64_t>(rows.size());
  const int64_t num_blocks = longest_in_blocks(sequences, block);
  at::Tensor scores = at::full({num_heads, num_rows, num_blocks}, kMasked, at::kFloat);
  float* out = scores.mutable_data_ptr<float>();
  at::parallel_for(0, num_heads * num_rows, 64, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const Row& row = rows[static_cast<size_t>(i % num_rows)];
      for (int64_t j = 0; j < row.num_visible; ++j) {
        out[i * num_blocks + j] = score(i / num_rows, row, j);
      }
    }
  });
  return scores;
}

}  // namespace

int64_t num_visible_blocks(const Sequences& sequences, int block) {
  int64_t visible = 0;
  for (const Row& row : rows_of(sequences, block)) visible += row.num_visible;
  return visible;
}

at::Tensor random_scores(const Sequences& sequences, int block, int64_t num_heads, int layer,
                         uint64_t seed) {
  const uint64_t layer_key = mix64(mix64(seed) ^ static_cast<uint64_t>(layer));
  return fill(sequences, block, num_heads, [&](int64_t head, const Row& row, int64_t j) {
    uint64_t bits = layer_key;
    for (const int64_t key : {row.sequence, head, row.block, j}) {
      bits = mix64(bits ^ static_cast<uint64_t>(key));
    }
    return static_cast<float>(bits >> 40) * 0x1p-24f;
  });
}

at::Tensor streaming_scores(const Sequences& sequences, int block, int64_t num_heads) {
  const auto first = static_cast<float>(longest_in_blocks(sequences, block));
  return fill(sequences, block, num_heads, [&](int64_t, const Row&, int64_t j) {
    return j == 0 ? first : static_cast<float>(j);
  });
}

at::Tensor oracle_scores(const AttentionInput& input, const torch_ops::Ragged& ragged) {
  const auto map = std::get<2>(torch_ops::pooled_attn(input.q, input.k, input.v, ragged,
                                                      input.scale, /*causal=*/true,
                                                      /*group_max=*/false, /*normalise=*/false));
  // A visible block may have a probability that rounds to 0: the smallest normal number keeps it
  // apart from a masked one, which must be -inf.
  const at::Tensor logarithm = map.clamp_min(std::numeric_limits<float>::min()).log();
  const auto mask =
      fill(input.sequences, ragged.block, 1, [](int64_t, const Row&, int64_t) { return 0.0f; });
  return logarithm.add(mask.to(map.device()));
}

}  // namespace seer::models
