#include "seer/models/sparse_meter.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
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
  if (!new_counts_.empty() && new_counts_[0].sizes() != lists.count.sizes()) add_new_counts();
  new_counts_.push_back(lists.count);
  new_begins_.push_back(lists.begin);
  if (new_counts_.size() == kTogether) add_new_counts();
  causal_.push_back(visible);
}

SparseStatistics SparseMeter::statistics() {
  SparseStatistics s;
  add_new_counts();
  std::vector<at::Tensor> parts{broken_};
  parts.insert(parts.end(), kept_.begin(), kept_.end());
  const at::Tensor counts = at::cat(parts).cpu();
  const auto* count = counts.const_data_ptr<int64_t>();
  SEER_CHECK(count[0] == 0, count[0],
             " rows hold NaN or infinite scores: no blocks could be chosen; is the gate of this "
             "model, or is a weight damaged?");
  for (const double causal : causal_) {
    s.calls.push_back({static_cast<double>(*++count), causal});
    s.kept_blocks += s.calls.back().kept;
    s.causal_blocks += causal;
  }
  s.score_seconds = score_.seconds();
  s.select_seconds = select_.seconds();
  s.attention_seconds = attend_.seconds();
  return s;
}

void SparseMeter::reset() {
  broken_ = at::zeros({1}, at::TensorOptions(device_).dtype(at::kLong));
  for (auto* tensors : {&kept_, &new_counts_, &new_begins_}) tensors->clear();
  causal_.clear();
  for (auto* watch : {&score_, &select_, &attend_}) watch->reset();
}

void SparseMeter::add_new_counts() {
  if (new_counts_.empty()) return;
  const at::NoGradGuard no_grad;
  kept_.push_back(at::stack(new_counts_).flatten(1).sum(1));
  broken_.add_(at::stack(new_begins_).lt(0).sum());  // rows without valid scores, on a GPU
  new_counts_.clear();
  new_begins_.clear();
}

}  // namespace seer::models
