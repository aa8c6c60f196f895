#pragma once
// Attention over chosen blocks: scores from a gate or from a baseline, one selection, one kernel.

#include <cstdint>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "seer/models/attention.h"
#include "seer/models/gate.h"
#include "seer/torch/stopwatch.h"

namespace seer::models {

// Where the scores of blocks come from.
enum class Scorer {
  gate,       // trained gates
  untrained,  // gates as they are created, not trained
  random,     // random blocks (and the diagonal)
  streaming,  // the first block and the most recent ones (StreamingLLM-like)
  oracle,     // the model's own max-pooled attention map: the upper limit of what a gate can learn
};
// "seer" is gate, the others are called as here. UsageError: another name; it lists them.
Scorer scorer_from_name(const std::string& name);
std::vector<std::string> scorer_names();  // in the order of Scorer
const char* name(Scorer scorer);

// What a source of scores needs, and what its scores can be used for.
struct ScorerTraits {
  bool trained;  // a folder of gates
  bool gates;    // gates of some form: their kernels run
  bool logits;   // scores mean something beside their order, which rules that take softmax need
};
ScorerTraits traits(Scorer scorer);
// UsageError: a rule that reads scores as logits with a scorer that only orders blocks.
void check_rule(Scorer scorer, const std::string& rule);

// What a run of sparse attention did, summed over layers and calls.
struct SparseStatistics {
  double kept_blocks = 0;    // blocks computed
  double causal_blocks = 0;  // blocks that dense causal attention computes
  double score_seconds = 0, select_seconds = 0, attention_seconds = 0;
  double density() const { return causal_blocks > 0 ? kept_blocks / causal_blocks : 1; }
};

struct SparseSettings {
  Scorer scorer = Scorer::gate;
  torch_ops::Selection selection;
  int block = 64;
  uint64_t seed = 0;  // of random and untrained
  // Of rules that keep a number of blocks a row (nz_ratio, row_budget): forced blocks count within that
  // number, which is one more than theirs at least. Rows then have as many blocks under every scorer,
  // where the published rule, which this is not, adds what is forced to what is best. One sequence only.
  bool even = false;
  io::GateConfig form;  // of untrained gates, where no others are given; its block size is `block`
};
// The blocks that a row keeps with `even` if it sees that many; 0: the rule keeps no fixed number. `n`:
// key blocks of the complete prompt.
int64_t even_blocks(const torch_ops::Selection& selection, int block, int64_t n);

// One sparse attention for a model; keeps the gate keys of a chunked prompt and the statistics. It
// is for prompts, whole or in chunks that start at a multiple of the block size. Layers whose
// sliding window hides keys stay dense within their window; the statistics have their time as
// attention, and no blocks of them.
class SparseAttention {
 public:
  // `gates` may be null for scorers that need none; both outlive this object. `untrained` makes
  // gates of the same form as `gates`, or of the default one. UsageError: a rule that reads scores
  // as logits with a scorer that only orders blocks. Error: no gates, or gates of another block
  // size.
  SparseAttention(const Decoder& model, const Gates* gates, SparseSettings settings);
  at::Tensor operator()(const AttentionInput& input);

  // Its three steps, for layers whose window hides nothing: scores of blocks [Hq, R, N]; the blocks
  // chosen by them (or by those of another object whose settings differ in the selection only), which
  // the statistics count; attention over those blocks, o [T, Hq, D], lse [Hq, T] f32.
  at::Tensor scores(const AttentionInput& input);
  torch_ops::BlockLists select(const AttentionInput& input, const at::Tensor& scores);
  std::tuple<at::Tensor, at::Tensor> attend(const AttentionInput& input,
                                            const torch_ops::BlockLists& lists);

  // Forgets the gate keys, to free their memory; a prompt that starts at token 0 begins anew
  // without it.
  void reset();
  // Since the beginning, or since reset_statistics(). Waits for the device. Error: some scores were
  // NaN (on a CPU the call itself fails).
  SparseStatistics statistics();
  void reset_statistics();

 private:
  const torch_ops::Ragged& ragged_of(const AttentionInput& input);
  torch_ops::Selection selection_for(const Sequences& sequences) const;
  void add_new_counts();
  const Decoder& model_;
  const Gates* gates_;
  std::unique_ptr<Gates> untrained_;
  SparseSettings settings_;
  std::vector<at::Tensor> gate_keys_;
  // Of the last call: all layers of a forward pass have the same.
  Sequences sequences_;
  torch_ops::Ragged ragged_;
  torch_ops::Stopwatch score_, select_, attention_;
  // On the model's device, so that nothing waits: blocks kept and rows without valid scores [2] int64,
  // and `count` and `begin` of the last calls, which are not in it yet.
  at::Tensor counts_;
  std::vector<at::Tensor> new_counts_, new_begins_;
  double causal_blocks_ = 0;
};

}  // namespace seer::models
