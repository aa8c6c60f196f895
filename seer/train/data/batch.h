#pragma once
// Training windows as tensors.

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "seer/train/data/synthetic.h"

namespace seer::train {

// Windows `first`, `first` + 1, ... with their synthetic facts, int64 [count, length] on the CPU.
// window(index, out) writes the `length` tokens of one.
template <class Window>
at::Tensor batch_of(uint64_t first, int64_t count, int64_t length, const SyntheticShare& synthetic,
                    const Window& window) {
  const at::Tensor ids = at::empty({count, length}, at::kLong);
  std::vector<int32_t> tokens(static_cast<size_t>(length));
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t index = first + static_cast<uint64_t>(i);
    window(index, tokens.data());
    synthetic.apply(index, length, tokens.data());
    std::copy(tokens.begin(), tokens.end(), ids.mutable_data_ptr<int64_t>() + i * length);
  }
  return ids;
}

}  // namespace seer::train
