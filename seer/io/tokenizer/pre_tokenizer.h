#pragma once
// `pre_tokenizer` of tokenizer.json: cuts a text into the words that BPE sees.

#include <functional>
#include <memory>
#include <string_view>

#include "seer/base/json.h"

namespace seer::io {

class PreTokenizer {
 public:
  // Words in order, valid during the call. `at_start`: the word begins where the whole text begins.
  using Take = std::function<void(std::string_view word, bool at_start)>;

  virtual ~PreTokenizer() = default;
  // `text` is valid UTF-8 and not empty; so are the words. Thread-safe.
  virtual void split(std::string_view text, bool at_start, const Take& take) const = 0;
};

// A pre-tokenizer and whether its last step turns every byte of a word into the character that
// stands for it. That step is left to the model, which then works on bytes. `split` may be null: the
// text is one word.
struct PreTokenizerPlan {
  std::unique_ptr<const PreTokenizer> split;
  bool is_byte_level = false;
};

// Error: a kind that is not supported (named, with the list).
PreTokenizerPlan read_pre_tokenizer(const JsonNode& field);

}  // namespace seer::io
