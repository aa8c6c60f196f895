#pragma once
// Words that were encoded before. Bounded: a word may push another one out. Thread-safe.

#include <array>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

namespace seer::io {

class WordCache {
 public:
  WordCache();
  // Appends the ids of `word` where it is known.
  bool find(std::string_view word, std::vector<int32_t>& ids);
  // Words that are long or have many ids are not kept.
  void put(std::string_view word, const int32_t* ids, size_t count);

 private:
  static constexpr size_t kLongestWord = 38, kMostIds = 6;
  static constexpr size_t kSlots = 1 << 16, kShards = 64;
  struct Slot {
    uint8_t length;  // 0: free
    uint8_t count;
    char word[kLongestWord];
    int32_t ids[kMostIds];
  };
  static_assert(sizeof(Slot) == 64, "a slot is one cache line");

  struct Free {
    void operator()(Slot* slots) const;
  };
  std::unique_ptr<Slot[], Free> slots_;     // zeros that take memory as they are used
  std::array<std::mutex, kShards> shards_;  // shard i has the slots with index % kShards == i
};

}  // namespace seer::io
