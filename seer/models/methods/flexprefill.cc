// "flexprefill": FlexPrefill (arXiv 2502.20766, section 3, algorithms 1 to 4). Each head of each text is of one
// of two kinds: where the attention of the last 64 queries to key blocks is near to what the means of q and k say
// (square root of the Jensen-Shannon divergence under 0.1), query-aware, by those means; else verticals and slashes.
//
// With the rule top_p it is the paper's: of a query-aware head the fewest blocks of all rows, of the others the fewest
// verticals and the fewest slashes, that hold the share `strength` (gamma) of what is estimated. Rules that keep a number
// of blocks a row take the best of each row: by the means, or as minference_vs does. Here blocks are of 64
// (there 128), and least budgets and the first block, which the paper's experiments always keep, are left to
// the selection.

#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/sort.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/where.h>
#include <ATen/ops/xlogy.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <vector>

#include "seer/models/methods/method.h"
#include "seer/models/methods/vertical_slash.h"

namespace seer::models {
namespace {

constexpr double kNear = 0.1;  // tau
constexpr char kOwnRule[] = "top_p";

// Of each value of a row [H, n] the share of the row's sum that it and those below it have.
at::Tensor mass_up_to(const at::Tensor& values) {
  const auto [sorted, order] = at::sort(values, std::optional(/*stable=*/true), /*dim=*/1);
  const at::Tensor mass = sorted.cumsum(1, at::kDouble);
  const at::Tensor share = mass.div(mass.slice(1, -1)).to(at::kFloat);
  return at::zeros_like(values).scatter_(1, order, share);
}

// [H, rows, blocks] bool: the fewest largest weights of a head that hold `share` of their sum.
at::Tensor fewest_with(const at::Tensor& weights, double share) {
  std::vector<at::Tensor> chosen;
  for (const at::Tensor& head : weights.unbind(0)) {  // sorting takes much memory
    const at::Tensor sorted = std::get<0>(at::sort(head.flatten()));
    const at::Tensor mass = sorted.cumsum(0, at::kDouble);
    const at::Tensor below = mass.le(mass.slice(0, -1).mul(1 - share)).sum(0, /*keepdim=*/true);
    chosen.push_back(head.ge(sorted.index_select(0, below.clamp_max_(sorted.size(0) - 1))));
  }
  return at::stack(chosen);
}

class FlexPrefillMethod : public Method {
 public:
  explicit FlexPrefillMethod(bool own_rule) : own_rule_(own_rule) {}

  at::Tensor scores(const AttentionInput& input, const torch_ops::Ragged& ragged) override {
    return own_rule_ ? at::Tensor() : ranks(input, ragged);  // its own rule does not go by rows
  }

  torch_ops::BlockLists choose(const AttentionInput& input, const torch_ops::Ragged& ragged,
                               const at::Tensor& scores,
                               const torch_ops::Selection& selection) override {
    if (selection.rule != kOwnRule) {
      return choose_blocks(scores.defined() ? scores : ranks(input, ragged), ragged, selection);
    }
    const double gamma = selection.strength.at(0);
    const at::Tensor chosen = by_sequence(input, ragged, [&](const Estimate& e) {
      const at::Tensor aware = fewest_with(at::softmax(e.means, -1), gamma);
      const Lines mass{mass_up_to(e.lines.vertical), mass_up_to(e.lines.slash)};
      const at::Tensor crossed = largest_of_blocks(mass, e.one, ragged.block).gt(1 - gamma);
      const at::Tensor both = at::where(e.query_aware, aware, crossed).to(at::kFloat);
      both.diagonal(e.one.first, 1, 2).fill_(1);
      return both;
    });
    return lists_of(chosen.gt(0), ragged, selection);
  }

 private:
  struct Estimate {
    const OneSequence& one;
    at::Tensor query_aware;  // [Hq, 1, 1] bool
    at::Tensor means;        // [Hq, rows, blocks] logits, -inf where masked
    Lines lines;
  };

  static at::Tensor ranks(const AttentionInput& input, const torch_ops::Ragged& ragged) {
    return by_sequence(input, ragged, [&](const Estimate& e) {
      return at::where(e.query_aware, e.means, largest_of_blocks(e.lines, e.one, ragged.block));
    });
  }

  template <class Combine>
  static at::Tensor by_sequence(const AttentionInput& input, const torch_ops::Ragged& ragged,
                                const Combine& combine) {
    check_has_last_queries(input, "flexprefill");
    const BlockMeans means = block_means(input, ragged);
    const at::Tensor logits = mean_scores(means, ragged, input.scale);
    return scores_by_sequence(input, ragged, [&](const OneSequence& one) {
      const Lines lines = last_lines(one, input.scale);
      const at::Tensor k = means.k.narrow(0, one.block_at, one.blocks);
      return combine(Estimate{one, is_query_aware(one, lines, k, input.scale, ragged.block),
                              logits.narrow(1, one.row_at, one.rows).narrow(2, 0, one.blocks),
                              lines});
    });
  }

  static at::Tensor is_query_aware(const OneSequence& one, const Lines& lines,
                                   const at::Tensor& k_means, double scale, int64_t block) {
    const int64_t n = std::min(kLastQueries, one.q.size(0));
    const at::Tensor q = one.q.slice(0, -n).to(at::kFloat).mean(0, /*keepdim=*/true);
    const at::Tensor estimated =
        at::softmax(head_products(q, k_means).squeeze(1).mul_(scale), -1);  // [Hq, blocks]
    const int64_t missing = one.blocks * block - one.k.size(0);
    const at::Tensor is = at::constant_pad_nd(lines.vertical, {0, missing})
                              .unflatten(1, {one.blocks, block})
                              .sum(2)
                              .div_(static_cast<double>(n));
    const at::Tensor middle =
        estimated.add(is).div_(2).clamp_min_(std::numeric_limits<float>::min());
    const auto divergence = [&](const at::Tensor& p) { return at::xlogy(p, p.div(middle)).sum(1); };
    const at::Tensor jensen_shannon = divergence(estimated).add(divergence(is)).div_(2);
    return jensen_shannon.lt(kNear * kNear).view({-1, 1, 1});
  }

  const bool own_rule_;
};

}  // namespace

std::unique_ptr<Method> make_flexprefill(const MethodInputs& in) {
  return std::make_unique<FlexPrefillMethod>(in.settings.selection.rule == kOwnRule);
}

}  // namespace seer::models
