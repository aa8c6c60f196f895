#include "seer/models/sparse_meter.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/zeros.h>

#include "seer/base/error.h"

namespace seer::models {

using torch_ops::Step;

SparseMeter::SparseMeter(const at::Device& device)
    : device_(device), score_(device), select_(device), attend_(device) {
  reset();
}

void SparseMeter::enter(Step step) {
  if (step == step_) return;  // an event between its kernels would keep one from starting early
  span_.reset();
  step_ = step;
  if (step == Step::score) span_.emplace(score_);
  if (step == Step::select) span_.emplace(select_);
  if (step == Step::attend) span_.emplace(attend_);
}

void SparseMeter::chose(const torch_ops::BlockLists& lists, double visible) {
  // Sums are small kernels: many calls at once.
  constexpr size_t kTogether = 16;
  new_counts_.push_back(lists.count.flatten());
  new_begins_.push_back(lists.begin.flatten());
  if (new_counts_.size() == kTogether) add_new_counts();
  causal_blocks_ += visible;
}

SparseStatistics SparseMeter::statistics() {
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
  s.attention_seconds = attend_.seconds();
  return s;
}

void SparseMeter::reset() {
  counts_ = at::zeros({2}, at::TensorOptions(device_).dtype(at::kLong));
  new_counts_.clear();
  new_begins_.clear();
  causal_blocks_ = 0;
  for (auto* watch : {&score_, &select_, &attend_}) watch->reset();
}

void SparseMeter::add_new_counts() {
  if (new_counts_.empty()) return;
  const at::NoGradGuard no_grad;
  counts_[0].add_(at::cat(new_counts_).sum());
  counts_[1].add_(at::cat(new_begins_).lt(0).sum());  // rows without valid scores, on a GPU
  new_counts_.clear();
  new_begins_.clear();
}

}  // namespace seer::models
