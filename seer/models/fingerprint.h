#pragma once
// What tells a model's weights from others of the same names and shapes.

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>

namespace seer::models {

// Of weights as a model's files hold them, in any order, in one file or many; the type that they are
// converted to afterwards does not count, nor does an exact conversion of the files (bf16 to f32).
//
// Each weight gives mix64(fnv1a64(name) ^ sum), sum = sum of mix64(j << 32 | bits of value j as f32)
// over its sample: all of its values, in their order, where there are at most 1024; otherwise 16 runs
// of 64, of which run i begins at value i * (count - 64) / 15. The fingerprint is the sum over all
// weights, modulo 2^64, without lm_head.weight where it has the sum of model.embed_tokens.weight: some
// files of tied models hold it, others do not. python/seer/fingerprint.py computes the same.
class Fingerprint {
 public:
  void add(const std::string& name, const at::Tensor& weight);
  // "seer-1:0123456789abcdef"
  std::string text() const;

 private:
  std::map<std::string, uint64_t> sums_;
};

}  // namespace seer::models
