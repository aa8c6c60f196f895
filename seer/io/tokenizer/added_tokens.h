#pragma once
// `added_tokens` of tokenizer.json: texts that are one token wherever they stand, special ones
// (<|eot_id|>) among them.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "seer/base/json.h"
#include "seer/io/tokenizer/normalizer.h"
#include "seer/io/tokenizer/regex.h"
#include "seer/io/tokenizer/vocabulary.h"

namespace seer::io {

struct AddedToken {
  std::string content;
  int32_t id = 0;
  bool is_special = false;
  bool single_word = false;                      // not within a word
  bool left_strip = false, right_strip = false;  // takes the white space beside it, too
  bool is_normalized = false;                    // looked for after the text was normalized
};

// Texts and which of them is the longest at a place.
class TokenTrie {
 public:
  void insert(std::string_view text, size_t index);  // the first index of a text stays
  struct Found {
    size_t index, length;
  };
  std::optional<Found> longest_at(std::string_view text, size_t pos) const;
  bool may_begin_with(char byte) const { return first_[static_cast<unsigned char>(byte)]; }

 private:
  struct Node {
    std::unordered_map<char, size_t> next;
    std::optional<size_t> index;
  };
  std::vector<Node> nodes_{1};
  bool first_[256] = {};
};

class AddedTokens {
 public:
  // Error: an id that is not the one which the `tokenizers` library gives to the token.
  AddedTokens(const std::optional<JsonNode>& field, const Vocabulary& vocabulary,
              const Normalizer* normalizer);

  const AddedToken* find(std::string_view content) const;
  const AddedToken* find(int64_t id) const;
  bool is_special(std::string_view content) const {
    const AddedToken* token = find(content);
    return token && token->is_special;
  }
  int64_t num_beyond_vocabulary() const { return num_beyond_; }

  // Cuts `text` at the tokens: take(part, nullptr) and take(token's text, token) in order; parts are
  // not empty. `normalized` chooses between the tokens for the text before and after normalization.
  using Take = std::function<void(std::string_view part, const AddedToken* token)>;
  void split(std::string_view text, bool normalized, const Take& take) const;

 private:
  void read(const JsonNode& field, const Vocabulary& vocabulary);
  bool is_within_word(std::string_view text, size_t begin, size_t end) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, size_t, StringHash, std::equal_to<>> by_content_;
  std::unordered_map<int64_t, size_t> by_id_;
  int64_t num_beyond_ = 0;
  TokenTrie raw_, normalized_;
  Regex word_;
};

}  // namespace seer::io
