#include "seer/models/sparse_attention.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "seer/base/error.h"
#include "seer/models/block_scores.h"

namespace seer::models {
namespace {

constexpr const char* kNames[] = {"seer", "untrained", "random", "streaming", "oracle"};

}  // namespace

Scorer scorer_from_name(const std::string& text) {
  std::string list;
  for (int i = 0; i < static_cast<int>(std::size(kNames)); ++i) {
    if (text == kNames[i]) return static_cast<Scorer>(i);
    list += std::string(i == 0 ? "" : ", ") + kNames[i];
  }
  throw UsageError(message("no method \"", text, "\"; known: dense, ", list));
}

std::vector<std::string> scorer_names() {
  return {std::begin(kNames), std::end(kNames)};
}

const char* name(Scorer scorer) {
  return kNames[static_cast<int>(scorer)];
}

ScorerTraits traits(Scorer scorer) {
  switch (scorer) {
    case Scorer::gate: return {.trained = true, .gates = true, .logits = true};
    case Scorer::untrained: return {.trained = false, .gates = true, .logits = true};
    case Scorer::random:
    case Scorer::streaming: return {.trained = false, .gates = false, .logits = false};
    case Scorer::oracle: return {.trained = false, .gates = false, .logits = true};
  }
  fail("unknown scorer");
}

void check_rule(Scorer scorer, const std::string& rule) {
  if (traits(scorer).logits || !kernels::select_rule(rule).needs_logits) return;
  throw UsageError(message("the rule ", rule, " needs scores that are logits, which ", name(scorer),
                           " has not: leave out one of the two, or choose nz_ratio or row_budget"));
}

int64_t even_blocks(const torch_ops::Selection& selection, int block, int64_t n) {
  const kernels::SelectRuleInfo& rule = kernels::select_rule(selection.rule);
  if (!rule.best_of_row) return 0;
  const int64_t best = kernels::best_of_row(rule.rule, selection.strength.at(0), block).of(n);
  const int64_t forced = 1 + selection.sink_blocks + selection.local_blocks;
  return std::min(n, std::max(best, forced + 1));
}

SparseAttention::SparseAttention(const Decoder& model, const Gates* gates, SparseSettings settings)
    : model_(model),
      gates_(gates),
      settings_(std::move(settings)),
      score_(model.device()),
      select_(model.device()),
      attention_(model.device()) {
  check_rule(settings_.scorer, settings_.selection.rule);
  reset_statistics();
  if (settings_.scorer == Scorer::untrained) {
    io::GateConfig config = gates != nullptr ? gates->config() : settings_.form;
    config.block_size = settings_.block;
    untrained_ = std::make_unique<Gates>(Gates::create(config, model, settings_.seed));
    gates_ = untrained_.get();
  }
  if (!traits(settings_.scorer).gates) return;
  SEER_CHECK(gates_ != nullptr, "the method seer needs a folder of gates");
  SEER_CHECK(gates_->config().block_size == settings_.block, "the gates were made for blocks of ",
             gates_->config().block_size, " tokens, but blocks of ", settings_.block,
             " are asked for");
}

void SparseAttention::reset() {
  gate_keys_.clear();
}

SparseStatistics SparseAttention::statistics() {
  SparseStatistics s;
  add_new_counts();
  const at::Tensor counts = counts_.cpu();
  const auto* count = counts.const_data_ptr<int64_t>();
  SEER_CHECK(count[1] == 0, count[1],
             " rows hold NaN or infinite scores: no blocks could be chosen; is the gate of this "
             "model, or is a weight damaged?");
  s.kept_blocks = static_cast<double>(count[0]);
  s.causal_blocks = causal_blocks_;
  s.score_seconds = score_.seconds();
  s.select_seconds = select_.seconds();
  s.attention_seconds = attention_.seconds();
  return s;
}

void SparseAttention::reset_statistics() {
  counts_ = at::zeros({2}, at::TensorOptions(model_.device()).dtype(at::kLong));
  new_counts_.clear();
  new_begins_.clear();
  causal_blocks_ = 0;
  for (auto* watch : {&score_, &select_, &attention_}) watch->reset();
}

void SparseAttention::add_new_counts() {
  if (new_counts_.empty()) return;
  const at::NoGradGuard no_grad;
  counts_[0].add_(at::cat(new_counts_).sum());
  counts_[1].add_(at::cat(new_begins_).lt(0).sum());  // rows without valid scores, on a GPU
  new_counts_.clear();
  new_begins_.clear();
}

const torch_ops::Ragged& SparseAttention::ragged_of(const AttentionInput& input) {
  const Sequences& now = input.sequences;
  const at::Device device = input.q.device();
  const bool same = ragged_.cu_q.defined() && ragged_.cu_q.device() == device &&
                    now.q_lens == sequences_.q_lens && now.k_lens == sequences_.k_lens;
  if (!same) {
    ragged_ = torch_ops::make_ragged(now.q_lens, now.k_lens, settings_.block, device);
    sequences_ = now;
  }
  return ragged_;
}

at::Tensor SparseAttention::scores(const AttentionInput& input) {
  const auto span = score_.span();
  const at::NoGradGuard no_grad;  // the choice of blocks has no gradient
  const torch_ops::Ragged& ragged = ragged_of(input);
  switch (settings_.scorer) {
    case Scorer::gate:
    case Scorer::untrained: {
      const bool whole =
          input.sequences.q_lens == input.sequences.k_lens && input.sequences.prompt_len == 0;
      return gates_->scores(input, ragged, model_, whole ? nullptr : &gate_keys_);
    }
    case Scorer::random:
      return random_scores(input.sequences, settings_.block, input.q.size(1), input.layer,
                           settings_.seed)
          .to(input.q.device());
    case Scorer::streaming:
      return streaming_scores(input.sequences, settings_.block, input.q.size(1))
          .to(input.q.device());
    case Scorer::oracle: return oracle_scores(input, ragged);
  }
  fail("unknown scorer");
}

torch_ops::Selection SparseAttention::selection_for(const Sequences& sequences) const {
  const int64_t block = settings_.block;
  torch_ops::Selection selection = settings_.selection;
  selection.prompt_blocks = (sequences.prompt_len + block - 1) / block;
  if (!settings_.even) return selection;
  SEER_CHECK(sequences.k_lens.size() == 1,
             "as many blocks a row for every scorer: want one sequence, got ",
             sequences.k_lens.size());
  const int64_t n = (sequences.longest() + block - 1) / block;
  const int64_t kept = even_blocks(selection, settings_.block, n);
  if (kept == 0) return selection;
  selection.rule = "row_budget";
  selection.strength = {static_cast<double>(kept * block)};
  selection.forced_within = true;
  return selection;
}

torch_ops::BlockLists SparseAttention::select(const AttentionInput& input,
                                              const at::Tensor& scores) {
  const Sequences& sequences = input.sequences;
  const torch_ops::BlockLists lists = [&] {
    const auto span = select_.span();
    return torch_ops::choose_blocks(scores, ragged_of(input), selection_for(sequences));
  }();
  // Sums are small kernels: many calls at once.
  constexpr size_t kTogether = 16;
  new_counts_.push_back(lists.count.flatten());
  new_begins_.push_back(lists.begin.flatten());
  if (new_counts_.size() == kTogether) add_new_counts();
  causal_blocks_ +=
      static_cast<double>(input.q.size(1) * num_visible_blocks(sequences, settings_.block));
  return lists;
}

std::tuple<at::Tensor, at::Tensor> SparseAttention::attend(const AttentionInput& input,
                                                           const torch_ops::BlockLists& lists) {
  const auto span = attention_.span();
  return torch_ops::block_sparse_attn(input.q, input.k, input.v, ragged_of(input), lists,
                                      input.scale, /*causal=*/true);
}

at::Tensor SparseAttention::operator()(const AttentionInput& input) {
  if (window_cuts(input)) {
    const auto span = attention_.span();
    return dense_attention(input);
  }
  const Sequences& sequences = input.sequences;
  for (size_t b = 0; b < sequences.q_lens.size(); ++b) {
    const int64_t begin = sequences.k_lens[b] - sequences.q_lens[b];
    SEER_CHECK(begin % settings_.block == 0, "a chunk starts at token ", begin,
               ", not a multiple of the block size ", settings_.block,
               "; choose a chunk length that is");
  }
  return std::get<0>(attend(input, select(input, scores(input))));
}

}  // namespace seer::models
