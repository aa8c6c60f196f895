#pragma once
// Counts and times what sparse attention does, from outside of it.

#include <ATen/core/Tensor.h>

#include <optional>
#include <vector>

#include "seer/torch/steps.h"
#include "seer/torch/stopwatch.h"

namespace seer::models {

// What sparse attention did, summed over layers and calls. Layers that stay dense within their window have
// their time in attention_seconds, and no blocks.
struct SparseStatistics {
  double kept_blocks = 0;    // blocks computed
  double causal_blocks = 0;  // blocks that dense causal attention computes
  struct Call {
    double kept, causal;  // blocks
  };
  std::vector<Call> calls;  // that chose blocks, in order: in a pass without chunks one a layer
  double score_seconds = 0, select_seconds = 0, attention_seconds = 0;
  double density() const { return causal_blocks > 0 ? kept_blocks / causal_blocks : 1; }
};

class SparseMeter : public torch_ops::StepWatcher {
 public:
  explicit SparseMeter(const at::Device& device);
  // Everything that this thread's sparse attention does during the result's life is added.
  [[nodiscard]] torch_ops::StepWatch watch() { return torch_ops::StepWatch(*this); }

  // Since the beginning, or since reset(). Waits for the device. Error: some scores were NaN (on a CPU the
  // call itself fails).
  SparseStatistics statistics();
  void reset();

 private:
  void enter(torch_ops::Step step) override;
  void chose(const torch_ops::BlockLists& lists, double visible) override;
  void add_new_counts();

  at::Device device_;
  torch_ops::Stopwatch score_, select_, attend_;
  torch_ops::Step step_ = torch_ops::Step::none;
  std::optional<torch_ops::Stopwatch::Span> span_;  // of the present step
  // On the device, so that nothing waits: rows without valid scores [1], blocks kept [calls], all int64,
  // and `count` and `begin` of the last calls, which are not in them yet.
  at::Tensor broken_;
  std::vector<at::Tensor> kept_, new_counts_, new_begins_;
  std::vector<double> causal_;  // blocks of each call
};

}  // namespace seer::models
