#include "seer/io/tokenizer/bpe.h"

#include "seer/base/error.h"
#include "seer/base/shown.h"
#include "seer/base/utf8.h"
#include "seer/io/tokenizer/byte_level.h"

namespace seer::io {

void Bpe::encode(std::string_view word, std::vector<int32_t>& ids) const {
  if (cache_.find(word, ids)) return;
  const size_t begin = ids.size();
  encode_new(word, ids);
  cache_.put(word, ids.data() + begin, ids.size() - begin);
}

void Bpe::encode_new(std::string_view word, std::vector<int32_t>& ids) const {
  if (ignore_merges_) {
    const auto id =
        is_byte_level_ ? vocabulary_.id(bytes_to_characters(word)) : vocabulary_.id(word);
    if (id) return ids.push_back(*id);
  }
  if (!is_cut_) return encode_part(word, ids);
  // A SentencePiece-style text is one long word. No merge joins two characters that no merged token
  // holds side by side, so it is cut there; not before a character that is unknown, because unknown
  // ones may be fused.
  size_t begin = 0, pos = 0;
  char32_t left = 0, right = 0;
  character_id(word, pos, left);
  for (size_t at = pos; pos < word.size(); at = pos, left = right) {
    const bool is_known = character_id(word, pos, right) >= 0;
    if (!is_known || neighbours_.find(left, right)) continue;
    encode_cut(word.substr(begin, at - begin), ids);
    begin = at;
  }
  encode_cut(word.substr(begin), ids);
}

void Bpe::encode_cut(std::string_view part, std::vector<int32_t>& ids) const {
  if (part_cache_.find(part, ids)) return;
  const size_t begin = ids.size();
  encode_part(part, ids);
  part_cache_.put(part, ids.data() + begin, ids.size() - begin);
}

void Bpe::encode_part(std::string_view word, std::vector<int32_t>& ids) const {
  std::vector<int32_t> symbols;
  symbols.reserve(word.size());
  append_characters(word, symbols);
  merge_symbols(merges_, symbols);
  ids.insert(ids.end(), symbols.begin(), symbols.end());
}

int32_t Bpe::character_id(std::string_view word, size_t& pos, char32_t& character) const {
  if (is_byte_level_) {
    character = static_cast<unsigned char>(word[pos++]);
    return first_[character];
  }
  character = next_code_point(word, pos);
  if (character < first_.size()) return first_[character];
  const auto it = characters_.find(character);
  return it == characters_.end() ? -1 : it->second;
}

void Bpe::append_characters(std::string_view word, std::vector<int32_t>& symbols) const {
  bool has_pending = false;  // an unknown token that the next unknown character may join
  const auto flush = [&] {
    if (has_pending) symbols.push_back(*unknown_);
    has_pending = false;
  };
  for (size_t pos = 0; pos < word.size();) {
    const size_t begin = pos;
    char32_t character;
    const int32_t id = character_id(word, pos, character);
    if (id >= 0) {
      flush();
      symbols.push_back(id);
      continue;
    }
    const std::string_view text = is_byte_level_ ? std::string_view(byte_characters()[character])
                                                 : word.substr(begin, pos - begin);
    if (has_byte_fallback_ && append_fallback(text, symbols)) continue;
    SEER_CHECK(unknown_ || unknown_name_.empty(), "the text has ", shown(text),
               ", but neither it nor the unknown token ", shown(unknown_name_),
               " is in the vocabulary");
    if (!unknown_) continue;  // the character is lost, as in the `tokenizers` library
    if (!fuse_unknown_) flush();
    has_pending = true;
  }
  flush();
}

bool Bpe::append_fallback(std::string_view text, std::vector<int32_t>& symbols) const {
  for (const char byte : text) {
    if (fallback_[static_cast<unsigned char>(byte)] < 0) return false;
  }
  for (const char byte : text) symbols.push_back(fallback_[static_cast<unsigned char>(byte)]);
  return true;
}

}  // namespace seer::io
