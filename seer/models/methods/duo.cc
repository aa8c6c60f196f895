// "duo": two kinds of heads, as in DuoAttention (arXiv 2410.10819, section 2): retrieval heads see all blocks, the
// others the first and the most recent ones. There the kind of each key head is learned from planted passkeys. Here
// it is of a query head, and measured without training, by the echo and the induction of RazorAttention (2407.15891): on
// random tokens, drawn from the seed, that come four times, the attention that a head gives to where the same token
// stood before and to what followed it there.
//
// The blocks are those of all heads of the model together (duo_budget.h), on average as many a head as the rule
// gives a row. Half of them are for retrieval heads, unless the others would have less than three blocks a row:
// their own, the first and the one before.

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/softmax.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/where.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <limits>
#include <utility>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/random.h"
#include "seer/models/methods/block_scores.h"
#include "seer/models/methods/duo_budget.h"
#include "seer/models/methods/method.h"

namespace seer::models {
namespace {

constexpr int64_t kPeriod = 256, kTimes = 4;  // of the random tokens

// What each head gives on average, [layers * heads], f32 on the CPU.
at::Tensor retrieval(const Decoder& model, uint64_t seed) {
  const at::NoGradGuard no_grad;
  Random random(seed);
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < kPeriod * kTimes; ++i) {
    const auto fresh = static_cast<int64_t>(random.below(model.config().vocab_size));
    ids.push_back(i < kPeriod ? fresh : ids[static_cast<size_t>(i - kPeriod)]);
  }
  const int64_t length = kPeriod * kTimes;
  const Sequences sequences{.q_lens = {length}, .k_lens = {length}, .prompt_len = 0};
  const at::Tensor future =
      at::ones({length, length}, at::TensorOptions(model.device()).dtype(at::kBool)).triu_(1);
  std::vector<at::Tensor> found;
  const Attention attention = [&](const AttentionInput& input) {
    const int64_t group = input.q.size(1) / input.k.size(1);
    for (int64_t head = 0; head < input.k.size(1); ++head) {  // each has length^2 weights
      const at::Tensor weights = at::softmax(
          head_products(input.q.narrow(1, head * group, group), input.k.narrow(1, head, 1))
              .mul_(input.scale)
              .masked_fill_(future, -std::numeric_limits<float>::infinity()),
          -1);
      at::Tensor sum = at::zeros({group}, weights.options());
      for (int64_t period = kPeriod; period < length; period += kPeriod) {
        for (const int64_t back : {period, period - 1}) {  // the token itself, the one behind it
          // Without the first pair: its key is the first token, which is looked at for no reason.
          sum.add_(weights.diagonal(-back, 1, 2).slice(1, 1).sum(1));
        }
      }
      found.push_back(sum.div_(static_cast<double>(length - kPeriod)));
    }
    return dense_attention(input);
  };
  model.hidden(at::tensor(ids, at::kLong).to(model.device()), sequences, attention);
  return at::cat(found).cpu();
}

class DuoMethod : public Method {
 public:
  DuoMethod(const Decoder& model, uint64_t seed)
      : windows_(model.config().sliding_window), num_heads_(model.config().num_heads) {
    const at::Tensor needs = retrieval(model, seed);
    const float* need = needs.const_data_ptr<float>();
    for (int64_t i = 0; i < needs.numel(); ++i) order_.push_back(i);
    std::stable_sort(order_.begin(), order_.end(),
                     [&](int64_t a, int64_t b) { return need[a] > need[b]; });
  }

  torch_ops::BlockLists choose(const AttentionInput& input, const torch_ops::Ragged& ragged,
                               const at::Tensor&, const torch_ops::Selection& selection) override {
    SEER_CHECK(selection.strength.size() == 1, "duo shares out one strength among its heads, got ",
               selection.strength.size());
    const kernels::BestOfRow best = kernels::best_of_row(kernels::select_rule(selection.rule).rule,
                                                         selection.strength[0], ragged.block);
    const auto [ranks, heads] = ranks_in(input);
    const int64_t sink = std::max<int64_t>(1, selection.sink_blocks);
    const at::Tensor chosen = scores_by_sequence(input, ragged, [&](const OneSequence& one) {
      const int64_t n = std::max(selection.prompt_blocks, one.blocks);
      const DuoBudget budget(n, best.of(n), heads,
                             1 + sink + std::max<int64_t>(1, selection.local_blocks));
      std::vector<int64_t> kept;
      for (const int64_t rank : ranks) {
        for (int64_t row = one.first; row < one.first + one.rows; ++row) {
          kept.push_back(budget.blocks(rank, row));
        }
      }
      const at::Tensor most = at::tensor(kept, at::kLong)
                                  .to(input.q.device(), at::kLong, /*non_blocking=*/true)
                                  .view({num_heads_, one.rows, 1});
      return places(one, sink).lt(most).to(at::kFloat);
    });
    return lists_of(chosen.gt(0), ragged, selection);
  }

 private:
  // Place of each block in the order in which a row takes them, [rows, blocks]: its own, the first `sink`, then the most
  // recent.
  static at::Tensor places(const OneSequence& one, int64_t sink) {
    const auto options = at::TensorOptions(one.q.device()).dtype(at::kLong);
    const at::Tensor block = at::arange(one.blocks, options);
    const at::Tensor back =
        at::arange(one.first, one.first + one.rows, options).unsqueeze(1).sub(block);
    return at::where(block.lt(sink), block.add(1), back.add(sink)).masked_fill_(back.eq(0), 0);
  }

  // Places of the layer's heads in the order of need among those of all layers that choose blocks, and how many
  // these are.
  std::pair<std::vector<int64_t>, int64_t> ranks_in(const AttentionInput& input) const {
    std::vector<int64_t> ranks(static_cast<size_t>(num_heads_));
    int64_t rank = 0;
    for (const int64_t head : order_) {
      const auto layer = static_cast<size_t>(head / num_heads_);
      const int64_t window = layer < windows_.size() ? windows_[layer] : 0;
      if (window > 0 && input.sequences.longest() > window) continue;
      if (static_cast<int>(layer) == input.layer)
        ranks[static_cast<size_t>(head % num_heads_)] = rank;
      ++rank;
    }
    return {ranks, rank};
  }

  const std::vector<int64_t> windows_;
  const int64_t num_heads_;
  std::vector<int64_t> order_;  // layer * num_heads + head, the neediest first
};

}  // namespace

std::unique_ptr<Method> make_duo(const MethodInputs& in) {
  return std::make_unique<DuoMethod>(in.model, in.settings.seed);
}

}  // namespace seer::models
