// Reading of the BPE model.
#include <cstdio>

#include "seer/base/error.h"
#include "seer/base/shown.h"
#include "seer/base/utf8.h"
#include "seer/io/tokenizer/bpe.h"
#include "seer/io/tokenizer/byte_level.h"

namespace seer::io {

namespace {

std::string byte_token(unsigned byte) {
  char text[8];
  std::snprintf(text, sizeof text, "<0x%02X>", byte);
  return text;
}

// A merge is "left right" in older files and ["left", "right"] in newer ones.
std::pair<std::string, std::string> read_merge(const JsonNode& field) {
  if (field.json().is_array()) {
    if (field.array_size() != 2) field.expected("two tokens");
    return {field.at(size_t{0}).string(), field.at(size_t{1}).string()};
  }
  const std::string& text = field.string();
  const size_t space = text.find(' ');
  if (space == std::string::npos || text.find(' ', space + 1) != std::string::npos) {
    field.expected("two tokens with a space between them");
  }
  return {text.substr(0, space), text.substr(space + 1)};
}

const JsonNode& check_kind(const JsonNode& model) {
  const std::string type = model.string_or("type", "BPE");
  if (type != "BPE") model.unsupported("model", type, "BPE");
  const auto dropout = model.find("dropout");
  if (dropout && dropout->json() != 0.0) {
    dropout->expected("null: words that are split by chance are not supported");
  }
  for (const char* key : {"continuing_subword_prefix", "end_of_word_suffix"}) {
    if (!model.string_or(key, "").empty()) model.at(key).expected("null or an empty string");
  }
  return model;
}

}  // namespace

Bpe::Bpe(const JsonNode& model, bool is_byte_level)
    : is_byte_level_(is_byte_level),
      vocabulary_(check_kind(model).at("vocab")),
      ignore_merges_(model.boolean_or("ignore_merges", false)),
      fuse_unknown_(model.boolean_or("fuse_unk", false)),
      merges_(0) {
  read_characters();
  read_fallbacks(model);
  merges_ = read_merges(model.at("merges"));
}

void Bpe::read_characters() {
  first_.fill(-1);
  for (unsigned i = 0; i < 256; ++i) {
    std::string text;
    append_utf8(text, i);
    first_[i] = vocabulary_.id(is_byte_level_ ? byte_characters()[i] : text).value_or(-1);
  }
  if (is_byte_level_) return;
  for (int64_t id = 0; id < static_cast<int64_t>(vocabulary_.num_ids()); ++id) {
    const std::string* token = vocabulary_.token(id);
    if (!token || token->empty()) continue;
    size_t pos = 0;
    const char32_t c = next_code_point(*token, pos);
    if (pos == token->size()) characters_.emplace(c, static_cast<int32_t>(id));
  }
}

void Bpe::read_fallbacks(const JsonNode& model) {
  fallback_.fill(-1);
  has_byte_fallback_ = model.boolean_or("byte_fallback", false);
  if (has_byte_fallback_) {
    for (unsigned i = 0; i < 256; ++i) {
      fallback_[i] = vocabulary_.id(byte_token(i)).value_or(-1);
    }
  }
  if (const auto unknown = model.find("unk_token")) {
    unknown_name_ = unknown->string();
    unknown_ = vocabulary_.id(unknown_name_);
  }
}

MergeTable Bpe::read_merges(const JsonNode& field) {
  MergeTable table(field.array_size());
  std::vector<std::string> merged;
  // Symbols that are not the characters they were written for may touch any neighbour.
  bool has_special_part = false;
  int32_t rank = 0;
  for (size_t i = 0; i < field.array_size(); ++i) {
    const JsonNode entry = field.at(i);
    if (entry.json().is_string() && entry.string().starts_with("#version")) continue;
    const auto [left, right] = read_merge(entry);
    const auto id_of = [&](const std::string& token) {
      const std::optional<int32_t> id = vocabulary_.id(token);
      SEER_CHECK(id, entry.where(), " needs the token ", shown(token),
                 ", which the vocabulary lacks");
      const bool is_byte = has_byte_fallback_ && token.size() == 6 && token.starts_with("<0x");
      has_special_part |= is_byte || id == unknown_;
      return *id;
    };
    const int32_t left_id = id_of(left), right_id = id_of(right), id = id_of(left + right);
    table.set(static_cast<uint32_t>(left_id), static_cast<uint32_t>(right_id), {rank++, id});
    if (!is_byte_level_) merged.push_back(left + right);
  }
  is_cut_ = !is_byte_level_ && !has_special_part;
  if (is_cut_) note_neighbours(merged);
  return table;
}

void Bpe::note_neighbours(const std::vector<std::string>& merged) {
  size_t bytes = 0;
  for (const std::string& token : merged) bytes += token.size();
  PairTable<char> all(bytes);
  for (const std::string& token : merged) {
    char32_t left = 0;
    for (size_t pos = 0; pos < token.size();) {
      const bool is_first = pos == 0;
      const char32_t right = next_code_point(token, pos);
      if (!is_first) all.set(left, right, 1);
      left = right;
    }
  }
  neighbours_ = std::move(all);
}

}  // namespace seer::io
