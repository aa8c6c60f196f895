#include "seer/models/sparse_attention.h"

#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "seer/base/error.h"
#include "seer/models/methods/row_scores.h"
#include "seer/torch/steps.h"

namespace seer::models {

using torch_ops::enter_step;
using torch_ops::Step;

int64_t even_blocks(const torch_ops::Selection& selection, int block, int64_t n) {
  const kernels::SelectRuleInfo& rule = kernels::select_rule(selection.rule);
  if (!rule.best_of_row) return 0;
  const int64_t best = kernels::best_of_row(rule.rule, selection.strength.at(0), block).of(n);
  const int64_t forced = 1 + selection.sink_blocks + selection.local_blocks;
  return std::min(n, std::max(best, forced + 1));
}

SparseAttention::SparseAttention(const Decoder& model, const Gates* gates, SparseSettings settings)
    : settings_(std::move(settings)) {
  check_rule(settings_.method, settings_.selection.rule);
  method_ = method_named(settings_.method).make({model, gates, settings_});
}

const torch_ops::Ragged& SparseAttention::ragged_of(const AttentionInput& input) {
  const Sequences& now = input.sequences;
  const at::Device device = input.q.device();
  const bool same = ragged_.cu_q.defined() && ragged_.cu_q.device() == device &&
                    now.q_lens == sequences_.q_lens && now.k_lens == sequences_.k_lens;
  if (!same) {
    for (size_t b = 0; b < now.q_lens.size(); ++b) {
      const int64_t begin = now.k_lens[b] - now.q_lens[b];
      SEER_CHECK(begin % settings_.block == 0, "a chunk starts at token ", begin,
                 ", not a multiple of the block size ", settings_.block,
                 "; choose a chunk length that is");
    }
    ragged_ = torch_ops::make_ragged(now.q_lens, now.k_lens, settings_.block, device);
    sequences_ = now;
  }
  return ragged_;
}

torch_ops::Selection SparseAttention::selection_for(const Sequences& sequences) const {
  const int64_t block = settings_.block;
  torch_ops::Selection selection = settings_.selection;
  selection.prompt_blocks = (sequences.prompt_len + block - 1) / block;
  if (!settings_.even) return selection;
  SEER_CHECK(sequences.k_lens.size() == 1,
             "as many blocks a row for every method: want one sequence, got ",
             sequences.k_lens.size());
  const int64_t n = (sequences.longest() + block - 1) / block;
  const int64_t kept = even_blocks(selection, settings_.block, n);
  if (kept == 0) return selection;
  selection.rule = "row_budget";
  selection.strength = {static_cast<double>(kept * block)};
  selection.forced_within = true;
  return selection;
}

void SparseAttention::tell(const AttentionInput& input, const torch_ops::BlockLists& lists) const {
  auto* const watcher = torch_ops::StepWatcher::current();
  if (watcher == nullptr) return;
  const int64_t visible = num_visible_blocks(input.sequences, settings_.block);
  watcher->chose(lists, static_cast<double>(input.q.size(1) * visible));
}

at::Tensor SparseAttention::scores(const AttentionInput& input) {
  const at::NoGradGuard no_grad;  // the choice of blocks has no gradient
  enter_step(Step::score);
  at::Tensor scores = method_->scores(input, ragged_of(input));
  enter_step(Step::none);
  return scores;
}

torch_ops::BlockLists SparseAttention::select(const AttentionInput& input,
                                              const at::Tensor& scores) {
  auto lists = method_->choose(input, ragged_of(input), scores, selection_for(input.sequences));
  enter_step(Step::none);
  tell(input, lists);
  return lists;
}

std::tuple<at::Tensor, at::Tensor> SparseAttention::attend(const AttentionInput& input,
                                                           const torch_ops::BlockLists& lists) {
  return torch_ops::block_sparse_attn(input.q, input.k, input.v, ragged_of(input), lists,
                                      input.scale, /*causal=*/true);
}

at::Tensor SparseAttention::operator()(const AttentionInput& input) {
  if (window_cuts(input)) {
    enter_step(Step::attend);
    at::Tensor o = dense_attention(input);
    enter_step(Step::none);
    return o;
  }
  const auto out = method_->attend(input, ragged_of(input), selection_for(input.sequences));
  tell(input, out.lists);
  return out.o;
}

}  // namespace seer::models
