#pragma once
// Keys (after RoPE) and values of one sequence, per layer. Those of a head lie together, so that a
// decode step reads memory in order.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace seer::models {

class KvCache {
 public:
  // `expected`: tokens there will be, at most, where that is known: room that is not made again.
  explicit KvCache(int num_layers, int64_t expected = 0)
      : layers_(num_layers), expected_(expected) {}
  // Tokens cached in every layer (the forward pass in progress not counted).
  int64_t length() const { return length_; }
  // Appends k, v [t, Hk, D] to a layer, in place where there is room; returns all of that layer's keys
  // and values [S, Hk, D], which later calls leave as they are.
  std::pair<at::Tensor, at::Tensor> append(int layer, const at::Tensor& k, const at::Tensor& v);
  // Called once all layers have the t new tokens.
  void advance(int64_t t) { length_ += t; }

 private:
  struct Layer {
    at::Tensor k, v;  // [Hk, capacity, D]
  };
  std::vector<Layer> layers_;
  int64_t expected_, length_ = 0;
};

}  // namespace seer::models
