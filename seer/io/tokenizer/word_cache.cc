#include "seer/io/tokenizer/word_cache.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <new>

namespace seer::io {

WordCache::WordCache() : slots_(static_cast<Slot*>(std::calloc(kSlots, sizeof(Slot)))) {
  if (!slots_) throw std::bad_alloc();
}

void WordCache::Free::operator()(Slot* slots) const {
  std::free(slots);
}

bool WordCache::find(std::string_view word, std::vector<int32_t>& ids) {
  if (word.size() > kLongestWord) return false;
  const size_t index = std::hash<std::string_view>()(word) % kSlots;
  const std::lock_guard lock(shards_[index % kShards]);
  const Slot& slot = slots_[index];
  if (slot.length != word.size() || std::memcmp(slot.word, word.data(), word.size()) != 0) {
    return false;
  }
  ids.insert(ids.end(), slot.ids, slot.ids + slot.count);
  return true;
}

void WordCache::put(std::string_view word, const int32_t* ids, size_t count) {
  if (word.empty() || word.size() > kLongestWord || count > kMostIds) return;
  const size_t index = std::hash<std::string_view>()(word) % kSlots;
  const std::lock_guard lock(shards_[index % kShards]);
  Slot& slot = slots_[index];
  slot.length = static_cast<uint8_t>(word.size());
  slot.count = static_cast<uint8_t>(count);
  std::copy(word.begin(), word.end(), slot.word);
  std::copy(ids, ids + count, slot.ids);
}

}  // namespace seer::io
