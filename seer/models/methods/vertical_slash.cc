#include "seer/models/methods/vertical_slash.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <limits>
#include <vector>

#include "seer/base/error.h"

namespace seer::models {

Lines last_lines(const OneSequence& sequence, double scale) {
  const int64_t keys = sequence.k.size(0), kv_heads = sequence.k.size(1);
  const int64_t group = sequence.q.size(1) / kv_heads;
  const int64_t n = std::min(kLastQueries, sequence.q.size(0));
  const at::Tensor q = sequence.q.slice(0, -n);
  const auto is = at::TensorOptions(q.device()).dtype(at::kBool);
  const at::Tensor future = at::ones({n, keys}, is).triu_(keys - n + 1);
  const int64_t step = std::max<int64_t>(1, kScoreEntries / (group * n * (keys + n)));
  std::vector<at::Tensor> vertical, slash;
  for (int64_t head = 0; head < kv_heads; head += step) {
    const int64_t heads = std::min(step, kv_heads - head);
    const at::Tensor weights = at::softmax(
        head_products(q.narrow(1, head * group, heads * group), sequence.k.narrow(1, head, heads))
            .mul_(scale)
            .masked_fill_(future, -std::numeric_limits<float>::infinity()),
        -1);
    vertical.push_back(weights.sum(1));
    // From the last query back each one is moved a place further to the right, by what is left out of the padding: column c
    // then holds the pairs at distance keys - 1 - c.
    const at::Tensor moved = at::constant_pad_nd(weights.flip(1), {0, n})
                                 .flatten(1)
                                 .narrow(1, 0, n * (keys + n - 1))
                                 .view({heads * group, n, keys + n - 1});
    slash.push_back(moved.sum(1).narrow(1, 0, keys).flip(1));
  }
  return {at::cat(vertical), at::cat(slash)};
}

at::Tensor largest_of_blocks(const Lines& lines, const OneSequence& sequence, int64_t block) {
  const int64_t keys = sequence.k.size(0), rows = sequence.rows, blocks = sequence.blocks;
  const int64_t missing = blocks * block - keys;
  const at::Tensor vertical =
      at::constant_pad_nd(lines.vertical, {0, missing}).unflatten(1, {blocks, block}).amax(2);
  // Of a row of `queries` and the block n before it: distances from n * block - block + 1 to n * block + queries - 1.
  const at::Tensor distances = at::constant_pad_nd(lines.slash, {block - 1, missing});
  const auto slashes = [&](int64_t queries) {
    return distances.unfold(1, block - 1 + queries, block).amax(2);
  };
  const auto options = at::TensorOptions(lines.slash.device()).dtype(at::kLong);
  const at::Tensor back = at::arange(sequence.first, sequence.first + rows, options)
                              .unsqueeze(1)
                              .sub(at::arange(blocks, options))
                              .clamp_min_(0);  // what is masked later on
  at::Tensor slash = slashes(block).index_select(1, back.flatten()).unflatten(1, {rows, blocks});
  const int64_t rest = sequence.q.size(0) % block;
  if (rest > 0) {
    slash.select(1, rows - 1).copy_(slashes(rest).index_select(1, back[rows - 1]));
  }
  return at::maximum(vertical.unsqueeze(1), slash);
}

void check_has_last_queries(const AttentionInput& input, const char* method) {
  const Sequences& sequences = input.sequences;
  for (const int64_t tokens : sequences.k_lens) {
    SEER_CHECK(sequences.prompt_len <= tokens, "the method ", method,
               " chooses by the last queries of a prompt, and a chunk ends at token ", tokens,
               " of ", sequences.prompt_len, ": read the prompt whole");
  }
}

}  // namespace seer::models
