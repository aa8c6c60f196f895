#include "seer/io/tokenizer/words.h"

#include <algorithm>
#include <string>

#include "seer/base/error.h"

namespace seer::io {

std::string word_of(const Tokenizer& tokenizer, int32_t token) {
  std::string word = tokenizer.decode({token}, /*skip_special=*/true);
  if (!word.empty() && word[0] == ' ') word.erase(0, 1);
  return word;
}

std::vector<int32_t> word_tokens(const Tokenizer& tokenizer, int64_t vocab_size,
                                 const char* what_to_do) {
  std::vector<int32_t> words;
  const size_t before = tokenizer.encode(":", false).size();
  for (int64_t id = 0; id < std::min(tokenizer.vocab_size(), vocab_size); ++id) {
    const auto token = static_cast<int32_t>(id);
    const std::string word = word_of(tokenizer, token);
    if (word.size() < 3 ||
        !std::all_of(word.begin(), word.end(), [](char c) { return c >= 'a' && c <= 'z'; })) {
      continue;
    }
    // Behind a colon or a word: the token that stands for the word with its space.
    const auto ids = tokenizer.encode(": " + word, false);
    if (ids.size() >= 2 && ids.back() == token && before + 1 == ids.size()) {
      words.push_back(token);
    }
  }
  SEER_CHECK(words.size() >= 100, "the tokenizer has ", words.size(),
             " words of one token, too few for synthetic facts (want 100): ", what_to_do);
  return words;
}

}  // namespace seer::io
