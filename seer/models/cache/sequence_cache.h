#pragma once
// What later forward passes need of a sequence's earlier tokens, per layer: keys (after RoPE), values, and
// the vectors of key blocks that gates score.
//
// One of these is one sequence: a batch has one for each of its Sequences, in their order. Callers see
// keys and values as append() returns them and gate keys as append_gate_keys() does, so that where they
// are stored (here one piece per layer that grows, the keys of a head together for decode_attn; pages
// would be another) is this class's own matter.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace seer::models {

class SequenceCache {
 public:
  // `expected`: tokens there will be, at most, where that is known: room that is not made again.
  explicit SequenceCache(int num_layers, int64_t expected = 0)
      : layers_(num_layers), expected_(expected) {}
  // Tokens cached in every layer (the forward pass in progress not counted).
  int64_t length() const { return length_; }
  // Appends k, v [t, Hk, D] to a layer, in place where there is room; returns all of that layer's keys
  // and values [S, Hk, D], which later calls leave as they are.
  std::pair<at::Tensor, at::Tensor> append(int layer, const at::Tensor& k, const at::Tensor& v);
  // Appends the gate keys [blocks, Hg, d] of the blocks from `first` on, or begins anew with them where that
  // is 0; returns those of all blocks. Error: those of `first` blocks are not what is cached.
  at::Tensor append_gate_keys(int layer, int64_t first, const at::Tensor& keys);
  // Called once all layers have the t new tokens.
  void advance(int64_t t) { length_ += t; }

 private:
  struct Layer {
    at::Tensor k, v;       // [Hk, capacity, D]
    at::Tensor gate_keys;  // [blocks, Hg, d]
  };
  Layer& at(int layer);
  std::vector<Layer> layers_;
  int64_t expected_, length_ = 0;
};

}  // namespace seer::models
