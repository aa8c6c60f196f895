#pragma once
// Attention over chosen blocks: scores from a gate or from a baseline, one selection, one kernel.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "seer/models/attention.h"
#include "seer/models/device_time.h"
#include "seer/models/gate.h"

namespace seer::models {

// Where the scores of blocks come from.
enum class Scorer {
  gate,       // trained gates
  untrained,  // gates as they are created, not trained
  random,     // random blocks (and the diagonal)
  streaming,  // the first block and the most recent ones (StreamingLLM-like)
  oracle,     // the model's own max-pooled attention map: the upper limit of what a gate can learn
};
Scorer scorer_from_name(const std::string& name);  // UsageError names the list
const char* name(Scorer scorer);

// What a run of sparse attention did, summed over layers and calls.
class SparseStatistics {
 public:
  double causal_blocks = 0;  // blocks that dense causal attention computes
  DeviceTime score, select, attention;

  // Blocks computed. They are counted where the lists are: reading this waits for the device. Error:
  // scores of some row held NaN or an infinity.
  double kept_blocks() const;
  double density() const { return causal_blocks > 0 ? kept_blocks() / causal_blocks : 1; }

  void count(const torch_ops::BlockLists& lists);
  // Adds the blocks of `other`; times stay.
  void add_blocks(const SparseStatistics& other);

 private:
  at::Tensor kept_, invalid_;  // int64 []: entries of lists, rows that have none for their scores
};

struct SparseSettings {
  Scorer scorer = Scorer::gate;
  torch_ops::Selection selection;
  int block = 64;
  uint64_t seed = 0;  // of random and untrained
};

// One sparse attention for a model; keeps the gate keys of a chunked prompt and the statistics. It
// is for prompts, whole or in chunks that start at a multiple of the block size. Layers whose
// sliding window hides keys stay dense within their window, and the statistics leave them out.
class SparseAttention {
 public:
  // `gates` may be null for scorers that need none; both outlive this object. `untrained` makes
  // gates of the same form as `gates`, or of the default one. UsageError: a rule that reads scores
  // as logits with a scorer that only orders blocks. Error: no gates, or gates of another block
  // size.
  SparseAttention(const Decoder& model, const Gates* gates, SparseSettings settings);
  at::Tensor operator()(const AttentionInput& input);
  // Forgets the gate keys, to free their memory; a prompt that starts at token 0 begins anew
  // without it.
  void reset();
  SparseStatistics statistics;

 private:
  at::Tensor scores(const AttentionInput& input, const torch_ops::Ragged& ragged);
  const torch_ops::Ragged& ragged_of(const Sequences& sequences, const at::Device& device);
  const Decoder& model_;
  const Gates* gates_;
  std::unique_ptr<Gates> untrained_;
  SparseSettings settings_;
  std::vector<at::Tensor> gate_keys_;
  torch_ops::Ragged ragged_;
  std::vector<int64_t> ragged_q_lens_, ragged_k_lens_;  // what it describes
};

}  // namespace seer::models
