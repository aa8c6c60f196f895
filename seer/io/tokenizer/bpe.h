#pragma once
// The BPE model of tokenizer.json: from a word to ids.

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "seer/base/json.h"
#include "seer/io/tokenizer/merge_list.h"
#include "seer/io/tokenizer/vocabulary.h"
#include "seer/io/tokenizer/word_cache.h"

namespace seer::io {

class Bpe {
 public:
  // `is_byte_level`: words come as bytes, the vocabulary has the characters that stand for them.
  // Error: a model other than BPE, dropout, prefixes or suffixes of words, a merge of unknown tokens.
  Bpe(const JsonNode& model, bool is_byte_level);

  // Appends the ids of a word: valid UTF-8, or the bytes of it. Thread-safe.
  void encode(std::string_view word, std::vector<int32_t>& ids) const;
  const Vocabulary& vocabulary() const { return vocabulary_; }

 private:
  MergeTable read_merges(const JsonNode& field);
  void read_characters();
  void read_fallbacks(const JsonNode& model);
  // Notes which characters stand side by side in the tokens that merges make.
  void note_neighbours(const std::vector<std::string>& merged);
  int32_t character_id(std::string_view word, size_t& pos, char32_t& character) const;
  void encode_new(std::string_view word, std::vector<int32_t>& ids) const;
  void encode_cut(std::string_view part, std::vector<int32_t>& ids) const;
  void encode_part(std::string_view word, std::vector<int32_t>& ids) const;
  // The bytes' own tokens, where the vocabulary has all of them.
  bool append_fallback(std::string_view text, std::vector<int32_t>& symbols) const;
  // Ids of single characters, bytes where the vocabulary lacks one, or the unknown token.
  void append_characters(std::string_view word, std::vector<int32_t>& symbols) const;

  bool is_byte_level_;
  Vocabulary vocabulary_;
  bool ignore_merges_, fuse_unknown_;
  std::string
      unknown_name_;  // may be a token that the vocabulary lacks, as long as nobody needs it
  std::optional<int32_t> unknown_;
  bool has_byte_fallback_ = false;
  std::array<int32_t, 256> fallback_;  // ids of <0x00> ... <0xFF>, -1: not there
  std::array<int32_t, 256> first_;     // ids of bytes (byte level) or of the first code points
  std::unordered_map<char32_t, int32_t> characters_;
  bool is_cut_ = false;  // words may be cut where no merge reaches across
  PairTable<char> neighbours_{0};
  MergeTable merges_;
  mutable WordCache cache_, part_cache_;
};

}  // namespace seer::io
