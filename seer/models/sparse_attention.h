#pragma once
// Attention over chosen blocks: a method chooses, one kernel computes.

#include <cstdint>
#include <memory>
#include <tuple>

#include "seer/models/attention.h"
#include "seer/models/methods/method.h"

namespace seer::models {

// The blocks that a row keeps with SparseSettings::even if it sees that many; 0: the rule keeps no fixed
// number. `n`: key blocks of the complete prompt.
int64_t even_blocks(const torch_ops::Selection& selection, int block, int64_t n);

// One sparse attention for a model. It is for prompts, whole, or, with a cache, in chunks that start at a
// multiple of the block size. Layers whose sliding window hides keys stay dense within their window. What
// it does can be watched (sparse_meter.h).
class SparseAttention {
 public:
  // `gates` may be null for methods that need none; both outlive this object. UsageError: a rule that reads
  // scores as logits with a method that only orders blocks. Error: no gates, or gates of another block
  // size.
  SparseAttention(const Decoder& model, const Gates* gates, SparseSettings settings);
  at::Tensor operator()(const AttentionInput& input);

  // Its three steps, for layers whose window hides nothing: what blocks are chosen by (undefined: not by
  // scores); the blocks chosen by that (or by that of another object whose settings differ in the selection
  // only); attention over those blocks, o [T, Hq, D], lse [Hq, T] f32.
  at::Tensor scores(const AttentionInput& input);
  torch_ops::BlockLists select(const AttentionInput& input, const at::Tensor& scores);
  std::tuple<at::Tensor, at::Tensor> attend(const AttentionInput& input,
                                            const torch_ops::BlockLists& lists);

 private:
  const torch_ops::Ragged& ragged_of(const AttentionInput& input);
  torch_ops::Selection selection_for(const Sequences& sequences) const;
  void tell(const AttentionInput& input, const torch_ops::BlockLists& lists) const;

  const SparseSettings settings_;
  std::unique_ptr<Method> method_;
  // Of the last call: all layers of a forward pass have the same.
  Sequences sequences_;
  torch_ops::Ragged ragged_;
};

}  // namespace seer::models
