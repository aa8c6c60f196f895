#pragma once
// Texts that are one token wherever they stand, special ones (<|eot_id|>) among them: `added_tokens` of
// tokenizer.json and what the files beside it name.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "seer/base/json.h"
#include "seer/io/tokenizer/added_token.h"
#include "seer/io/tokenizer/normalizer.h"
#include "seer/io/tokenizer/regex.h"
#include "seer/io/tokenizer/tokenizer_config.h"
#include "seer/io/tokenizer/vocabulary.h"

namespace seer::io {

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
  // `field`: added_tokens of tokenizer.json. Ids are those that the files say; a token that `config`
  // names and no file numbers comes behind all others. Error: files that contradict themselves.
  AddedTokens(const std::optional<JsonNode>& field, const TokenizerConfig& config,
              const Vocabulary& vocabulary, const Normalizer& normalizer);

  const AddedToken* find(std::string_view content) const;
  const AddedToken* find(int64_t id) const;
  bool is_special(std::string_view content) const {
    const AddedToken* token = find(content);
    return token && token->is_special;
  }
  int64_t num_ids() const { return num_ids_; }  // the largest id and 1

  // Cuts `text` at the tokens: take(part, nullptr) and take(token's text, token) in order; parts are
  // not empty. `normalized` chooses between the tokens for the text before and after normalization.
  using Take = std::function<void(std::string_view part, const AddedToken* token)>;
  void split(std::string_view text, bool normalized, const Take& take) const;

 private:
  void read(const JsonNode& field, const Vocabulary& vocabulary);
  void complete(const TokenizerConfig& config, const Vocabulary& vocabulary);
  AddedToken* known(std::string_view content);
  // The id of a token that no file numbers: as the `tokenizers` library counts, unless it is taken.
  int32_t free_id(const Vocabulary& vocabulary) const;
  void insert(AddedToken token, const std::string& where, const Vocabulary& vocabulary);
  void make_tries(const Normalizer& normalizer);
  bool is_within_word(std::string_view text, size_t begin, size_t end) const;

  std::vector<AddedToken> tokens_;
  std::unordered_map<std::string, size_t, StringHash, std::equal_to<>> by_content_;
  std::unordered_map<int64_t, size_t> by_id_;
  int64_t end_ = 0;  // the largest id of an added token and 1
  int64_t num_ids_ = 0;
  size_t num_bytes_ = 0;
  TokenTrie raw_, normalized_;
  Regex word_;
};

}  // namespace seer::io
