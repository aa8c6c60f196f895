#pragma once
// Hash table from pairs of 32-bit numbers to a value; open addressing, one cache line a look-up.

#include <cstdint>
#include <vector>

#include "seer/base/random.h"

namespace seer::io {

template <class Value>
class PairTable {
 public:
  explicit PairTable(size_t capacity) {
    size_t slots = 16;
    while (slots < capacity * 2) slots *= 2;
    slots_.resize(slots);
  }

  // A pair that is there gets the new value. At most `capacity` pairs.
  void set(uint32_t left, uint32_t right, const Value& value) {
    const uint64_t key = key_of(left, right);
    size_t i = mix64(key) & (slots_.size() - 1);
    while (slots_[i].key != kEmpty && slots_[i].key != key) i = (i + 1) & (slots_.size() - 1);
    slots_[i] = {key, value};
  }

  const Value* find(uint32_t left, uint32_t right) const {
    const uint64_t key = key_of(left, right);
    for (size_t i = mix64(key);; ++i) {
      const Slot& slot = slots_[i & (slots_.size() - 1)];
      if (slot.key == key) return &slot.value;
      if (slot.key == kEmpty) return nullptr;
    }
  }

 private:
  static constexpr uint64_t kEmpty = ~uint64_t{0};  // ids and code points never reach 2^32 - 1
  struct Slot {
    uint64_t key = kEmpty;
    Value value{};
  };
  static uint64_t key_of(uint32_t left, uint32_t right) { return uint64_t{left} << 32 | right; }

  std::vector<Slot> slots_;
};

}  // namespace seer::io
