#include "seer/train/loop/parameters.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/_foreach_mul.h>
#include <ATen/ops/_foreach_norm.h>
#include <ATen/ops/_foreach_zero.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/linalg_vector_norm.h>
#include <ATen/ops/stack.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <numeric>

#include "seer/base/error.h"

namespace seer::train {

std::vector<int> owners(const std::vector<int64_t>& elements, int ranks) {
  std::vector<size_t> order(elements.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return elements[a] > elements[b]; });
  std::vector<int64_t> loads(static_cast<size_t>(ranks));
  std::vector<int> owners(elements.size());
  for (const size_t i : order) {
    const auto least = std::min_element(loads.begin(), loads.end());
    *least += elements[i];
    owners[i] = static_cast<int>(least - loads.begin());
  }
  return owners;
}

Parameters::Parameters(std::vector<ParameterGroup>& groups, Ranks& ranks, bool states_on_host)
    : ranks_(ranks) {
  std::vector<int64_t> elements;
  for (const ParameterGroup& group : groups) {
    for (const Parameter& p : group.parameters) elements.push_back(p.leaf.numel());
  }
  SEER_CHECK(!elements.empty(), "there are no parameters to train");
  const std::vector<int> owner_of = owners(elements, ranks.size());
  if (states_on_host) staging_.emplace(groups[0].parameters[0].leaf.device());
  for (ParameterGroup& group : groups) {
    std::vector<std::vector<Weight>> weights(static_cast<size_t>(ranks.size()));
    for (Parameter& p : group.parameters) {
      Entry entry = make_entry(p, owner_of[all_.size()]);
      weights[static_cast<size_t>(entry.owner)].push_back({p.name, entry.master, entry.gradient});
      index_[entry.leaf.unsafeGetTensorImpl()] = all_.size();
      add_tensor({p.name, entry.master}, entry.owner);
      all_.push_back(std::move(entry));
    }
    steps_.emplace_back();
    for (int rank = 0; rank < ranks.size(); ++rank) {
      const std::vector<Weight>& some = weights[static_cast<size_t>(rank)];
      if (some.empty()) continue;
      auto optimizer = make_optimizer(group.rule, some, staging_ ? &*staging_ : nullptr);
      for (const auto& state : optimizer->state()) add_tensor(state, rank);
      if (rank == ranks.rank()) steps_.back() = std::move(optimizer);
    }
  }
}

Parameters::Entry Parameters::make_entry(Parameter& p, int owner) {
  SEER_CHECK(p.leaf.is_contiguous(), "parameter ", p.name, " is not contiguous");
  const at::Tensor value = p.leaf.detach();
  const bool is_f32 = value.scalar_type() == at::kFloat, is_own = owner == ranks_.rank();
  Entry entry{p.leaf, at::zeros(value.sizes(), value.options().dtype(at::kFloat)), value, owner};
  if (is_f32) entry.leaf.mutable_grad() = entry.gradient;
  if (!is_own) {
    entry.master = at::empty(value.sizes(), entry.gradient.options().device(at::kMeta));
  } else if (!is_f32 || staging_) {
    const at::Tensor first = p.initial.defined() ? p.initial : value;
    entry.master = first.to(staging_ ? at::Device(at::kCPU) : value.device(), at::kFloat,
                            /*non_blocking=*/false, /*copy=*/true);
    leaves_.push_back(value);
    masters_.push_back(entry.master);
  }
  p.initial = at::Tensor();
  gradients_.push_back(entry.gradient);
  if (is_own) own_gradients_.push_back(entry.gradient);
  return entry;
}

void Parameters::add_tensor(const std::pair<std::string, at::Tensor>& tensor, int owner) {
  tensors_.push_back(tensor);
  tensor_owners_.push_back(owner);
}

void Parameters::zero_gradients() {
  at::_foreach_zero_(gradients_);
  for (Entry& entry : all_) entry.is_summed = false;
}

void Parameters::collect() {
  std::vector<at::Tensor> from, to;
  for (const Entry& entry : all_) {
    const at::Tensor& grad = entry.leaf.grad();
    if (!grad.defined() || grad.is_same(entry.gradient)) continue;
    from.push_back(grad);
    to.push_back(entry.gradient);
    entry.leaf.mutable_grad() = at::Tensor();
  }
  if (!from.empty()) at::_foreach_add_(to, from);
}

void Parameters::sum(Entry& entry) {
  if (!entry.is_summed && ranks_.size() > 1) ranks_.start_reduce(entry.gradient, entry.owner);
  entry.is_summed = true;
}

void Parameters::sum(std::span<const at::Tensor> leaves) {
  for (const at::Tensor& leaf : leaves) {
    if (leaf.defined()) sum(all_[index_.at(leaf.unsafeGetTensorImpl())]);
  }
}

void Parameters::sum_rest() {
  for (Entry& entry : all_) sum(entry);
}

at::Tensor Parameters::norm() {
  const at::Tensor own =
      own_gradients_.empty()
          ? at::zeros({}, gradients_[0].options())
          : at::linalg_vector_norm(at::stack(at::_foreach_norm(own_gradients_)), 2);
  if (ranks_.size() == 1) return own;
  const at::Tensor square = own.to(at::kDouble).square();
  ranks_.start_sum(square);
  ranks_.finish();
  return square.sqrt().to(at::kFloat);
}

void Parameters::step(const std::vector<double>& rates, const at::Tensor& skip,
                      const at::Tensor& shrink) {
  if (shrink.defined() && !own_gradients_.empty()) at::_foreach_mul_(own_gradients_, shrink);
  for (size_t i = 0; i < steps_.size(); ++i) {
    if (steps_[i]) steps_[i]->step(rates[i], skip);
  }
  publish();
}

void Parameters::publish() {
  if (staging_) {
    staging_->up(leaves_, [&](size_t i, int64_t begin, const at::Tensor& buffer) {
      buffer.copy_(masters_[i].view(-1).narrow(0, begin, buffer.numel()));
    });
  } else if (!leaves_.empty()) {
    at::_foreach_copy_(leaves_, masters_);
  }
  if (ranks_.size() == 1) return;
  for (const Entry& entry : all_) ranks_.start_broadcast(entry.leaf.detach(), entry.owner);
  ranks_.finish();
}

at::Tensor Parameters::fetch(size_t i) {
  const auto& [name, tensor] = tensors_[i];
  if (!tensor.is_meta()) return tensor;
  const at::Tensor arrived = at::empty(tensor.sizes(), gradients_[0].options());
  ranks_.receive(arrived, tensor_owners_[i]);
  return arrived;
}

void Parameters::send() {
  for (const auto& [name, tensor] : tensors_) {
    if (!tensor.is_meta()) ranks_.send(tensor.to(device()), /*to=*/0);
  }
}

int64_t Parameters::state_bytes() const {
  int64_t bytes = 0;
  for (const auto& [name, tensor] : tensors_) {
    const bool is_leaf = std::any_of(all_.begin(), all_.end(), [&](const Entry& entry) {
      return tensor.is_alias_of(entry.leaf);
    });
    if (!tensor.is_meta() && !is_leaf) bytes += static_cast<int64_t>(tensor.nbytes());
  }
  return bytes;
}

}  // namespace seer::train
