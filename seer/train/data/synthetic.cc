#include "seer/train/data/synthetic.h"

#include <algorithm>

#include "seer/base/error.h"
#include "seer/io/repeated_passages.h"
#include "seer/io/tokenizer/token_ids.h"
#include "seer/io/tokenizer/words.h"

namespace seer::train {
namespace {

constexpr int64_t kShort = 2048;  // tokens of a window that counts as short
constexpr uint64_t kSyntheticSeed = 0x73796e746865;
constexpr int kWordsOfFact = 5;  // two of the key, three of the value

}  // namespace

Synthetic::Synthetic(const io::Tokenizer& tokenizer, int64_t vocab_size)
    : words_(io::word_tokens(tokenizer, vocab_size, "set the synthetic share to 0")),
      head_(tokenizer.encode("\nRemember this:", false)),
      tail_(tokenizer.encode(".\n", false)) {
  for (const auto* ids : {&head_, &tail_}) {
    io::check_token_ids(*ids, vocab_size, "synthetic facts", &tokenizer);
  }
}

void Synthetic::write(Random random, int64_t length, int32_t* window) const {
  io::FreePlaces places(length);
  const bool is_short = length <= kShort;
  const int64_t most_facts = std::min<int64_t>(is_short ? 16 : 63, length / 128);
  const int64_t most_passages = is_short ? 4 : 10;
  const io::Repeats repeats = {io::between(1, most_passages, random),
                               std::min<int64_t>(32, length / 16),
                               std::min<int64_t>(256, length / 8)};
  io::repeat_passages(places, random, repeats, window);
  std::vector<int32_t> fact;
  for (int64_t i = io::between(std::min<int64_t>(4, most_facts), most_facts, random); i > 0; --i) {
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
