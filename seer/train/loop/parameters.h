#pragma once
// The parameters of a run, dealt out over its processes: every process computes with all of them, and one
// alone, the owner, has a parameter's f32 master and optimizer states (ZeRO-1, arXiv 1910.02054): gradients
// are summed there, it steps, and what computes goes from there to all.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "seer/train/loop/checkpoint.h"
#include "seer/train/loop/optimizer.h"
#include "seer/train/loop/schedule.h"
#include "seer/train/ranks/ranks.h"

namespace seer::train {

struct Parameter {
  std::string name;
  // What computes, contiguous. An f32 leaf is its own master.
  at::Tensor leaf;
  // In host memory: the value to begin with, where the leaf's type does not hold it. Undefined: the leaf's.
  at::Tensor initial = {};
};

// Parameters that share an optimizer and a schedule.
struct ParameterGroup {
  std::string name;                   // "gate": appears in metrics as lr or lr_<name>
  std::vector<Parameter> parameters;  // names unique in the run
  Rule rule;
  double learning_rate = 1e-3;
  Schedule schedule;
};

// The owner of each: whole parameters, the largest first, each to whoever has the fewest elements.
std::vector<int> owners(const std::vector<int64_t>& elements, int ranks);

class Parameters {
 public:
  // Takes the initial values out of `groups`. `states_on_host`: masters and states are in host memory,
  // and the owner steps there; a master is then never the leaf.
  Parameters(std::vector<ParameterGroup>& groups, Ranks& ranks, bool states_on_host);

  at::Device device() const { return all_[0].leaf.device(); }

  // The gradient of a step, f32. An f32 leaf's .grad is it, and stays so.
  void zero_gradients();
  // Adds what lies in the .grad of narrower leaves, and takes it from there.
  void collect();
  // Begins the sums to the owners. Those of `leaves` are complete in this process.
  void sum(std::span<const at::Tensor> leaves);
  // Of all that are left.
  void sum_rest();
  // The global norm, [] f32, when the sums are finished.
  at::Tensor norm();

  // One step, with gradients times `shrink` (undefined: as they are) and each group's rate. With states on
  // the host it waits for the gradients.
  void step(const std::vector<double>& rates, const at::Tensor& skip, const at::Tensor& shrink);
  // Masters have changed: what computes follows, in all processes.
  void publish();

  // Masters and states, in an order that all processes have; those of others on the meta device.
  const NamedTensors& tensors() const { return tensors_; }
  // Tensor i, for the first process, while all others call send().
  at::Tensor fetch(size_t i);
  void send();
  // Of the masters and states of this process, without leaves.
  int64_t state_bytes() const;

 private:
  struct Entry {
    at::Tensor leaf, gradient,
        master;  // the master is on the meta device where another process has it
    int owner;
    bool is_summed = false;
  };
  Ranks& ranks_;
  std::optional<Staging> staging_;
  std::vector<Entry> all_;
  std::map<const void*, size_t> index_;  // by leaf
  std::vector<at::Tensor> gradients_, own_gradients_;
  std::vector<at::Tensor> leaves_, masters_;  // own, where they are two tensors
  std::vector<std::unique_ptr<Optimizer>>
      steps_;  // of each group; null: it has nothing of this process
  NamedTensors tensors_;
  std::vector<int> tensor_owners_;

  Entry make_entry(Parameter& p, int owner);
  void add_tensor(const std::pair<std::string, at::Tensor>& tensor, int owner);
  void sum(Entry& entry);
};

}  // namespace seer::train
