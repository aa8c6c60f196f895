#include "seer/io/tokenizer/added_tokens.h"

#include <algorithm>

#include "seer/base/error.h"
#include "seer/base/shown.h"
#include "seer/base/utf8.h"

namespace seer::io {

namespace {

constexpr const char* kWord = R"([\p{Alphabetic}\p{L}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}])";

AddedToken read_token(const JsonNode& field) {
  AddedToken token;
  token.content = field.at("content").string();
  token.id = static_cast<int32_t>(field.at("id").integer(0, kLargestId));
  token.is_special = field.boolean_or("special", false);
  token.single_word = field.boolean_or("single_word", false);
  token.left_strip = field.boolean_or("lstrip", false);
  token.right_strip = field.boolean_or("rstrip", false);
  token.is_normalized = field.boolean_or("normalized", !token.is_special);
  return token;
}

// Begin of the white space that `text` ends with.
size_t trailing_space(std::string_view text) {
  size_t begin = text.size();
  while (begin > 0) {
    size_t at = begin - 1;
    while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
    size_t pos = at;
    if (!is_white_space(next_code_point(text, pos))) break;
    begin = at;
  }
  return begin;
}

size_t leading_space(std::string_view text) {
  size_t end = 0;
  for (size_t pos = 0; pos < text.size(); end = pos) {
    if (!is_white_space(next_code_point(text, pos))) break;
  }
  return end;
}

// The last character of a text that is not empty.
std::string_view last_character(std::string_view text) {
  size_t at = text.size() - 1;
  while (at > 0 && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) --at;
  return text.substr(at);
}

std::string_view first_character(std::string_view text) {
  size_t end = 0;
  next_code_point(text, end);
  return text.substr(0, end);
}

}  // namespace

void TokenTrie::insert(std::string_view text, size_t index) {
  if (text.empty()) return;
  first_[static_cast<unsigned char>(text.front())] = true;
  size_t node = 0;
  for (const char byte : text) {
    const auto [it, is_new] = nodes_[node].next.emplace(byte, nodes_.size());
    node = it->second;
    if (is_new) nodes_.emplace_back();
  }
  if (!nodes_[node].index) nodes_[node].index = index;
}

std::optional<TokenTrie::Found> TokenTrie::longest_at(std::string_view text, size_t pos) const {
  std::optional<Found> found;
  size_t node = 0;
  for (size_t i = pos; i < text.size(); ++i) {
    const auto it = nodes_[node].next.find(text[i]);
    if (it == nodes_[node].next.end()) break;
    node = it->second;
    if (nodes_[node].index) found = Found{*nodes_[node].index, i + 1 - pos};
  }
  return found;
}

AddedTokens::AddedTokens(const std::optional<JsonNode>& field, const Vocabulary& vocabulary,
                         const Normalizer* normalizer)
    : word_(kWord, "added_tokens") {
  if (!field) return;
  read(*field, vocabulary);
  // Where two tokens look alike after normalization, a special one comes first.
  for (const bool special : {true, false}) {
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (tokens_[i].is_special != special) continue;
      if (!tokens_[i].is_normalized) {
        raw_.insert(tokens_[i].content, i);
        continue;
      }
      std::string content = tokens_[i].content;
      if (normalizer) normalizer->normalize(content);
      normalized_.insert(content, i);
    }
  }
}

void AddedTokens::read(const JsonNode& field, const Vocabulary& vocabulary) {
  int64_t next = static_cast<int64_t>(vocabulary.size());
  for (size_t i = 0; i < field.array_size(); ++i) {
    AddedToken token = read_token(field.at(i));
    if (token.content.empty() || by_content_.count(token.content)) {
      field.at(i).expected("a content that is not empty and comes once");
    }
    const std::optional<int32_t> known = vocabulary.id(token.content);
    const int64_t id = known ? *known : next;
    SEER_CHECK(token.id == id, field.at(i).where(), " gives the token ", shown(token.content),
               " the id ", token.id, ", want ", id,
               known ? ", its id in the vocabulary" : ", the next one after the vocabulary");
    SEER_CHECK(!by_id_.count(id), field.at(i).where(), " gives the id ", id, " to a second token");
    if (!known) ++num_beyond_, ++next;
    by_content_.emplace(token.content, tokens_.size());
    by_id_.emplace(id, tokens_.size());
    tokens_.push_back(std::move(token));
  }
}

const AddedToken* AddedTokens::find(std::string_view content) const {
  const auto it = by_content_.find(content);
  return it == by_content_.end() ? nullptr : &tokens_[it->second];
}

const AddedToken* AddedTokens::find(int64_t id) const {
  const auto it = by_id_.find(id);
  return it == by_id_.end() ? nullptr : &tokens_[it->second];
}

bool AddedTokens::is_within_word(std::string_view text, size_t begin, size_t end) const {
  const auto is_word = [&](std::string_view character) {
    return word_.find(character, 0).has_value();
  };
  return (begin > 0 && is_word(last_character(text.substr(0, begin)))) ||
         (end < text.size() && is_word(first_character(text.substr(end))));
}

void AddedTokens::split(std::string_view text, bool normalized, const Take& take) const {
  const TokenTrie& trie = normalized ? normalized_ : raw_;
  size_t done = 0;
  for (size_t pos = 0; pos < text.size();) {
    const auto found = trie.may_begin_with(text[pos]) ? trie.longest_at(text, pos) : std::nullopt;
    if (!found) {
      ++pos;
      continue;
    }
    const AddedToken& token = tokens_[found->index];
    size_t begin = pos, end = pos + found->length;
    pos = end;
    if (token.single_word && is_within_word(text, begin, end)) continue;
    if (token.left_strip) begin = std::max(trailing_space(text.substr(0, begin)), done);
    if (token.right_strip) end += leading_space(text.substr(end));
    if (done < begin) take(text.substr(done, begin - done), nullptr);
    // A token of white space may stand inside of what the one before it has taken; it counts still.
    if (begin < end) take(text.substr(begin, end - begin), &token);
    done = end;
  }
  if (done < text.size()) take(text.substr(done), nullptr);
}

}  // namespace seer::io
