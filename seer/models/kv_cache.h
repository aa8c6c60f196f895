#pragma once
// Keys (after RoPE) and values of one sequence, per layer; grows by doubling.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace seer::models {

class KvCache {
 public:
  explicit KvCache(int num_layers) : layers_(num_layers) {}
  // Tokens cached in every layer (the forward pass in progress not counted).
  int64_t length() const { return length_; }
  // Appends k, v [t, Hk, D] to a layer; returns all of that layer's keys and values [S, Hk, D].
  std::pair<at::Tensor, at::Tensor> append(int layer, const at::Tensor& k, const at::Tensor& v);
  // Called once all layers have the t new tokens.
  void advance(int64_t t) { length_ += t; }

 private:
  struct Layer {
    at::Tensor k, v;  // [capacity, Hk, D]
  };
  std::vector<Layer> layers_;
  int64_t length_ = 0;
};

}  // namespace seer::models
