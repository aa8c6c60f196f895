#pragma once
// Synthetic recall in training windows: facts that come back once, and passages that are pasted
// again. Without them a small model does not learn to look far back.

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "seer/base/random.h"
#include "seer/io/tokenizer/tokenizer.h"

namespace seer::train {

// Words of one token each and the frame of a fact: "\nRemember this: k1 k2 v1 v2 v3.\n".
class Synthetic {
 public:
  // Error: the tokenizer has fewer than 100 words of one token in a model's vocabulary of
  // `vocab_size`.
  Synthetic(const io::Tokenizer& tokenizer, int64_t vocab_size);

  // Overwrites parts of `window` [length]: passages of 32 to 256 tokens appear again later, and
  // facts are told twice, each at random places that do not overlap; the first token stays. Windows
  // up to 2,048 tokens get 4 to 16 facts and 1 to 4 passages, longer ones 4 to 63 and 1 to 10,
  // shorter ones in proportion.
  void write(Random random, int64_t length, int32_t* window) const;

  int64_t fact_len() const { return static_cast<int64_t>(head_.size() + 5 + tail_.size()); }

 private:
  std::vector<int32_t> words_, head_, tail_;
};

// Synthetic recall in a share of windows, chosen by (seed, index).
class SyntheticShare {
 public:
  // `share` 0 ... 1; at 0 the tokenizer is not looked at.
  SyntheticShare(double share, uint64_t seed, const io::Tokenizer& tokenizer, int64_t vocab_size);
  void apply(uint64_t index, int64_t length, int32_t* window) const;

 private:
  double share_;
  uint64_t seed_;
  std::optional<Synthetic> synthetic_;
};

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
