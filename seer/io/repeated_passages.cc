#include "seer/io/repeated_passages.h"

#include <algorithm>
#include <utility>

namespace seer::io {
namespace {

constexpr int kTries = 64;  // to find a free place; then the piece is left out

}  // namespace

FreePlaces::FreePlaces(int64_t length) : taken_(static_cast<size_t>(length), false) {
  taken_[0] = true;
}

int64_t FreePlaces::take(int64_t size, Random& random) {
  const auto length = static_cast<int64_t>(taken_.size());
  if (size >= length) return -1;
  for (int i = 0; i < kTries; ++i) {
    const auto at = static_cast<int64_t>(random.below(static_cast<uint64_t>(length - size + 1)));
    const auto begin = taken_.begin() + at;
    if (std::find(begin, begin + size, true) != begin + size) continue;
    std::fill(begin, begin + size, true);
    return at;
  }
  return -1;
}

int64_t between(int64_t low, int64_t high, Random& random) {
  high = std::max(low, high);
  return low + static_cast<int64_t>(random.below(static_cast<uint64_t>(high - low + 1)));
}

void repeat_passages(FreePlaces& places, Random& random, const Repeats& repeats, int32_t* window) {
  for (int64_t i = 0; i < repeats.passages; ++i) {
    const int64_t size = between(repeats.shortest, repeats.longest, random);
    int64_t from = places.take(size, random), to = places.take(size, random);
    if (from < 0 || to < 0) continue;
    if (from > to) std::swap(from, to);
    std::copy_n(window + from, size, window + to);
  }
}

}  // namespace seer::io
