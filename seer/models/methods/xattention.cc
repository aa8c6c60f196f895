// "xattention": antidiagonals (XAttention, arXiv 2503.16428, section 2.1 and algorithm 1). Of every 8 queries
// and 8 keys the products along the antidiagonal are summed; a softmax over the groups of keys, its input
// divided by 8; a block scores the sum of its groups. Scores are its logarithm, so that
// the rule top_p is the paper's threshold. Here blocks are of 64 (there 128), the last group of a text has the pairs that exist, and the paper's minimum
// thresholds by head, found by dynamic programming, are left out.

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>

#include <algorithm>
#include <limits>

#include "seer/models/methods/block_scores.h"
#include "seer/models/methods/method.h"

namespace seer::models {
namespace {

constexpr int64_t kStride = 8;  // divides every block size

// x [t, H, D] -> [groups, H, kStride * D], zeros where tokens are missing.
at::Tensor grouped(const at::Tensor& x, int64_t groups, bool reversed) {
  const at::Tensor whole = at::constant_pad_nd(x, {0, 0, 0, 0, 0, groups * kStride - x.size(0)})
                               .unflatten(0, {groups, kStride});
  return (reversed ? whole.flip(1) : whole).transpose(1, 2).flatten(2);
}

class XAttentionMethod : public Method {
 public:
  at::Tensor scores(const AttentionInput& input, const torch_ops::Ragged& ragged) override {
    return scores_by_sequence(input, ragged, [&](const OneSequence& one) {
      return of_one(one, ragged.block / kStride, input.scale / kStride);
    });
  }

 private:
  // `per`: groups of a block.
  static at::Tensor of_one(const OneSequence& one, int64_t per, double scale) {
    const auto groups_of = [](int64_t tokens) { return (tokens + kStride - 1) / kStride; };
    const int64_t heads = one.q.size(1), q_groups = groups_of(one.q.size(0)),
                  k_groups = groups_of(one.k.size(0));
    const at::Tensor q = grouped(one.q, one.rows * per, /*reversed=*/true);
    const at::Tensor k = grouped(one.k, k_groups, /*reversed=*/false);
    return scores_in_pieces(
        one, heads * per * k_groups, [&](int64_t row, int64_t rows, int64_t blocks) {
          const int64_t seen = std::min(blocks * per, k_groups), before = (one.first + row) * per;
          const at::Tensor products =
              head_products(q.narrow(0, row * per, rows * per), k.narrow(0, 0, seen)).mul_(scale);
          const auto is = at::TensorOptions(q.device()).dtype(at::kBool);
          const at::Tensor future = at::ones({rows * per, seen - before}, is).triu_(1);
          products.slice(2, before).masked_fill_(future, -std::numeric_limits<float>::infinity());
          const at::Tensor weights = at::softmax(products, -1);
          const int64_t queries = std::min(rows * per, q_groups - row * per);
          weights.slice(1, queries).zero_();  // groups without a query
          return at::constant_pad_nd(weights, {0, blocks * per - seen})
              .view({heads, rows, per, blocks, per})
              .sum({2, 4})
              .clamp_min_(std::numeric_limits<float>::min())
              .log_();
        });
  }
};

}  // namespace

std::unique_ptr<Method> make_xattention(const MethodInputs&) {
  return std::make_unique<XAttentionMethod>();
}

}  // namespace seer::models
