#include "seer/train/data/synthetic.h"

#include <algorithm>
#include <utility>

#include "seer/base/error.h"
#include "seer/io/tokenizer/token_ids.h"
#include "seer/io/tokenizer/words.h"

namespace seer::train {
namespace {

constexpr int kTries = 64;        // to find a free place; then the piece is left out
constexpr int64_t kShort = 2048;  // tokens of a window that counts as short
constexpr uint64_t kSyntheticSeed = 0x73796e746865;
constexpr int kWordsOfFact = 5;  // two of the key, three of the value

// Places of a window that are taken.
class Places {
 public:
  explicit Places(int64_t length) : taken_(static_cast<size_t>(length), false) {
    taken_[0] = true;  // BOS
  }
  // Takes `size` free tokens at a random place; -1 where none was found.
  int64_t take(int64_t size, Random& random) {
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

 private:
  std::vector<bool> taken_;
};

int64_t between(int64_t low, int64_t high, Random& random) {
  high = std::max(low, high);
  return low + static_cast<int64_t>(random.below(static_cast<uint64_t>(high - low + 1)));
}

void repeat_in(Places& places, Random& random, int64_t most, int64_t length, int32_t* window) {
  for (int64_t i = between(1, most, random); i > 0; --i) {
    const int64_t size =
        between(std::min<int64_t>(32, length / 16), std::min<int64_t>(256, length / 8), random);
    int64_t from = places.take(size, random), to = places.take(size, random);
    if (from < 0 || to < 0) continue;
    if (from > to) std::swap(from, to);
    std::copy_n(window + from, size, window + to);
  }
}

}  // namespace

void repeat_passages(Random& random, int64_t most, int64_t length, int32_t* window) {
  Places places(length);
  repeat_in(places, random, most, length, window);
}

Synthetic::Synthetic(const io::Tokenizer& tokenizer, int64_t vocab_size)
    : words_(io::word_tokens(tokenizer, vocab_size, "set the synthetic share to 0")),
      head_(tokenizer.encode("\nRemember this:", false)),
      tail_(tokenizer.encode(".\n", false)) {
  for (const auto* ids : {&head_, &tail_}) {
    io::check_token_ids(*ids, vocab_size, "synthetic facts", &tokenizer);
  }
}

void Synthetic::write(Random random, int64_t length, int32_t* window) const {
  Places places(length);
  const bool is_short = length <= kShort;
  const int64_t most_facts = std::min<int64_t>(is_short ? 16 : 63, length / 128);
  const int64_t most_passages = is_short ? 4 : 10;
  repeat_in(places, random, most_passages, length, window);
  std::vector<int32_t> fact;
  for (int64_t i = between(std::min<int64_t>(4, most_facts), most_facts, random); i > 0; --i) {
    fact = head_;
    for (int j = 0; j < kWordsOfFact; ++j) fact.push_back(words_[random.below(words_.size())]);
    fact.insert(fact.end(), tail_.begin(), tail_.end());
    const auto size = static_cast<int64_t>(fact.size());
    const int64_t first = places.take(size, random), second = places.take(size, random);
    if (first < 0 || second < 0) continue;
    std::copy(fact.begin(), fact.end(), window + first);
    std::copy(fact.begin(), fact.end(), window + second);
  }
}

SyntheticShare::SyntheticShare(double share, uint64_t seed, const io::Tokenizer& tokenizer,
                               int64_t vocab_size)
    : share_(share), seed_(mix64(seed ^ kSyntheticSeed)) {
  SEER_CHECK(share >= 0 && share <= 1, "the share of synthetic windows is ", share,
             ", want 0 ... 1");
  if (share > 0) synthetic_.emplace(tokenizer, vocab_size);
}

void SyntheticShare::apply(uint64_t index, int64_t length, int32_t* window) const {
  Random random(seed_, index);
  if (random.uniform() < share_) synthetic_->write(random, length, window);
}

}  // namespace seer::train
