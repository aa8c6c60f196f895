#include "seer/io/tokenizer/added_tokens.h"

#include <algorithm>

#include "seer/base/error.h"
#include "seer/base/limits.h"
#include "seer/base/shown.h"
#include "seer/base/utf8.h"

namespace seer::io {

namespace {

constexpr const char* kWord = R"([\p{Alphabetic}\p{L}\p{M}\p{Nd}\p{Pc}\x{200c}\x{200d}])";

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

AddedToken read_added_token(const JsonNode& field, bool special) {
  AddedToken token;
  token.content = field.at("content").string();
  token.is_special = field.boolean_or("special", special);
  token.single_word = field.boolean_or("single_word", false);
  token.left_strip = field.boolean_or("lstrip", false);
  token.right_strip = field.boolean_or("rstrip", false);
  token.is_normalized = field.boolean_or("normalized", !token.is_special);
  return token;
}

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

AddedTokens::AddedTokens(const std::optional<JsonNode>& field, const TokenizerConfig& config,
                         const Vocabulary& vocabulary, const Normalizer& normalizer)
    : num_ids_(static_cast<int64_t>(vocabulary.num_ids())), word_(kWord, "added_tokens") {
  if (field) read(*field, vocabulary);
  complete(config, vocabulary);
  make_tries(normalizer);
}

void AddedTokens::read(const JsonNode& field, const Vocabulary& vocabulary) {
  for (size_t i = 0; i < field.array_size(); ++i) {
    const JsonNode entry = field.at(i);
    AddedToken token = read_added_token(entry, false);
    token.id = static_cast<int32_t>(entry.at("id").integer(0, limits::kTokenId));
    if (token.content.empty()) entry.at("content").expected("a text that is not empty");
    AddedToken* before = known(token.content);
    if (!before) {
      insert(std::move(token), entry.where(), vocabulary);
      continue;
    }
    SEER_CHECK(before->id == token.id, entry.where(), " gives the token ", shown(token.content),
               " the id ", token.id, ", but ", before->id, " was given to it before");
    token.is_special |= before->is_special;
    *before = std::move(token);
  }
}

void AddedTokens::complete(const TokenizerConfig& config, const Vocabulary& vocabulary) {
  for (AddedToken token : config.added) {
    AddedToken* before = known(token.content);
    if (!before) {
      if (const auto id = vocabulary.id(token.content)) token.id = *id;
      insert(std::move(token), config.added_where, vocabulary);
    } else if (config.has_flags) {
      token.id = before->id;
      token.is_special |= before->is_special;
      *before = std::move(token);
    }
  }
  const auto add_special = [&](const std::string& name, AddedToken token) {
    if (AddedToken* before = known(token.content)) {
      before->is_special = true;
      return;
    }
    token.id = vocabulary.id(token.content).value_or(free_id(vocabulary));
    insert(std::move(token), name, vocabulary);
  };
  for (const std::string_view role : kSpecialRoles) {
    const auto it = config.special.find(std::string(role));
    if (it != config.special.end()) add_special(it->first, it->second);
  }
  for (const auto& [name, token] : config.special) add_special(name, token);
  for (AddedToken token : config.additional) {
    if (known(token.content)) continue;
    token.id = vocabulary.id(token.content).value_or(free_id(vocabulary));
    insert(std::move(token), "additional_special_tokens", vocabulary);
  }
}

int32_t AddedTokens::free_id(const Vocabulary& vocabulary) const {
  int64_t id = std::max(static_cast<int64_t>(vocabulary.size()), end_);
  while (vocabulary.token(id) || by_id_.count(id)) ++id;
  return static_cast<int32_t>(id);
}

void AddedTokens::insert(AddedToken token, const std::string& where, const Vocabulary& vocabulary) {
  num_bytes_ += token.content.size();
  SEER_CHECK(
      token.content.size() <= limits::kAddedTokenBytes && num_bytes_ <= limits::kAddedTokensBytes,
      where, ": added tokens may have ", limits::kAddedTokenBytes, " bytes each and ",
      limits::kAddedTokensBytes, " together; the file is damaged or hostile");
  const std::optional<int32_t> in_vocabulary = vocabulary.id(token.content);
  SEER_CHECK(token.id == in_vocabulary.value_or(token.id), where, " gives the token ",
             shown(token.content), " the id ", token.id, ", want ", in_vocabulary.value_or(0),
             ", its id in the vocabulary");
  const auto at_id = by_id_.find(token.id);
  const std::string* other = at_id != by_id_.end() ? &tokens_[at_id->second].content
                             : in_vocabulary       ? nullptr
                                                   : vocabulary.token(token.id);
  SEER_CHECK(!other, where, " gives the id ", token.id, " to ", shown(token.content), ", but ",
             shown(*other), " has it");
  by_content_.emplace(token.content, tokens_.size());
  by_id_.emplace(token.id, tokens_.size());
  end_ = std::max(end_, int64_t{token.id} + 1);
  num_ids_ = std::max(num_ids_, end_);
  tokens_.push_back(std::move(token));
}

void AddedTokens::make_tries(const Normalizer& normalizer) {
  // Where two tokens look alike after normalization, a special one comes first.
  for (const bool special : {true, false}) {
    for (size_t i = 0; i < tokens_.size(); ++i) {
      if (tokens_[i].is_special != special) continue;
      AddedToken& token = tokens_[i];
      token.text = token.content;
      if (token.is_normalized) normalizer.normalize(token.text);
      (token.is_normalized ? normalized_ : raw_).insert(token.text, i);
    }
  }
}

AddedToken* AddedTokens::known(std::string_view content) {
  const auto it = by_content_.find(content);
  return it == by_content_.end() ? nullptr : &tokens_[it->second];
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
