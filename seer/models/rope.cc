#include "seer/models/rope.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/tensor.h>

namespace seer::models {

std::pair<at::Tensor, at::Tensor> rope_tables(const RopeConfig& config, const at::Tensor& positions,
                                              int64_t length) {
  const RopeFrequencies frequencies = rope_frequencies(config, length);
  // The copy does not wait for the device: CUDA has read pageable memory when the call returns.
  const at::Tensor inv_freq = at::tensor(frequencies.inv_freq, at::TensorOptions(at::kFloat))
                                  .to(positions.device(), /*non_blocking=*/true);
  const at::Tensor angle = positions.to(at::kFloat).unsqueeze(1).mul(inv_freq);
  return {angle.cos().mul(frequencies.attention_factor),
          angle.sin().mul(frequencies.attention_factor)};
}

at::Tensor apply_rope(const at::Tensor& x, const at::Tensor& cos, const at::Tensor& sin) {
  const int64_t half = cos.size(1);
  const at::Tensor c = cos.unsqueeze(1), s = sin.unsqueeze(1);
  const at::Tensor first = x.slice(2, 0, half), second = x.slice(2, half, 2 * half);
  const at::Tensor rotated_first = first.mul(c).sub(second.mul(s));
  const at::Tensor rotated_second = second.mul(c).add(first.mul(s));
  if (2 * half == x.size(2)) return at::cat({rotated_first, rotated_second}, 2);
  return at::cat({rotated_first, rotated_second, x.slice(2, 2 * half)}, 2);
}

}  // namespace seer::models
