#pragma once
// Passages of a window of tokens that appear again later in it: what can be read off only by looking far back.

#include <cstdint>
#include <vector>

#include "seer/base/random.h"

namespace seer::io {

// Places of a window that are not taken yet. The first token, BOS, always is.
class FreePlaces {
 public:
  explicit FreePlaces(int64_t length);
  // Takes `size` free tokens at a random place; -1 where none was found.
  int64_t take(int64_t size, Random& random);

 private:
  std::vector<bool> taken_;
};

// A whole number from low to max(low, high).
int64_t between(int64_t low, int64_t high, Random& random);

struct Repeats {
  int64_t passages, shortest, longest;  // tokens of a passage
};
// Overwrites parts of `window`: passages appear again later, in places that are then taken.
void repeat_passages(FreePlaces& places, Random& random, const Repeats& repeats, int32_t* window);

}  // namespace seer::io
