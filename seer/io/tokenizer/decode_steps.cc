#include "seer/io/tokenizer/decode_steps.h"

#include <algorithm>

#include "seer/base/utf8.h"
#include "seer/io/text.h"
#include "seer/io/tokenizer/byte_level.h"
#include "seer/io/tokenizer/pattern.h"

namespace seer::io {

namespace {

// Bytes of `text` without the front of a character at its end that the next bytes may complete.
size_t complete_size(std::string_view text) {
  for (size_t i = text.size() - std::min<size_t>(text.size(), 3); i < text.size(); ++i) {
    const bool is_lead = static_cast<unsigned char>(text[i]) >= 0xC0;
    if (is_lead && utf8_step(text.substr(i)).cut) return i;
  }
  return text.size();
}

// The byte that a token like <0xE2> stands for, or -1. A sign before one digit counts, as in the
// `tokenizers` library.
int byte_of_token(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token.back() != '>') return -1;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
  };
  const int high = token[3] == '+' ? 0 : digit(token[3]), low = digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace

void ByteLevelDecode::push(const DecodeChunk& chunk) {
  bytes_ += characters_to_bytes(chunk.text);
  give(complete_size(bytes_), false);
}

void ByteLevelDecode::finish() {
  give(bytes_.size(), true);
  next_->finish();
}

void ByteLevelDecode::give(size_t size, bool ends) {
  if (size == 0 && !ends) return;
  const std::string_view front = std::string_view(bytes_).substr(0, size);
  const std::string text = replace_invalid_utf8(front);
  next_->push({text, !has_begun_, ends});
  has_begun_ = true;
  bytes_.erase(0, size);
}

void FuseDecode::push(const DecodeChunk& chunk) {
  next_->push({chunk.text, !has_begun_, false});
  has_begun_ = true;
}

void FuseDecode::finish() {
  next_->push({"", !has_begun_, true});
  next_->finish();
}

void TokenStep::push(const DecodeChunk& chunk) {
  if (chunk.begins_token && chunk.ends_token) return push_token(chunk.text);
  token_ += chunk.text;
  if (!chunk.ends_token) return;
  push_token(token_);
  token_.clear();
}

void ReplaceDecode::push_token(std::string_view token) {
  const std::string text = replace_all(pattern_, token, content_);
  next_->push({text});
}

void ByteFallbackDecode::push_token(std::string_view token) {
  const int byte = byte_of_token(token);
  if (byte >= 0) return push_byte(static_cast<char>(byte));
  end_run();
  next_->push({token});
}

void ByteFallbackDecode::finish() {
  end_run();
  next_->finish();
}

void ByteFallbackDecode::push_byte(char byte) {
  bytes_ += byte;
  while (early_ && !bytes_.empty()) {
    const Utf8Step step = utf8_step(bytes_);
    if (step.cut) return;
    const std::string_view front = std::string_view(bytes_).substr(0, step.length);
    for (size_t i = 0; i < (step.valid ? 1 : step.length); ++i) {
      give(step.valid ? front : kReplacementCharacter);
    }
    bytes_.erase(0, step.length);
  }
}

void ByteFallbackDecode::give(std::string_view text) {
  next_->push({text, !has_run_, false});
  has_run_ = true;
}

void ByteFallbackDecode::end_run() {
  if (find_invalid_utf8(bytes_) == std::string_view::npos) {
    if (!bytes_.empty()) give(bytes_);
  } else {
    for (size_t i = 0; i < bytes_.size(); ++i) {
      if (has_run_) next_->push({"", false, true});
      has_run_ = false;
      give(kReplacementCharacter);
    }
  }
  if (has_run_) next_->push({"", false, true});
  has_run_ = false;
  bytes_.clear();
}

void MetaspaceDecode::push_token(std::string_view token) {
  const bool drops_space = is_first_ && settings_.prepend != MetaspaceSettings::Prepend::never;
  is_first_ = false;
  std::string out;
  for (size_t pos = 0; pos < token.size();) {
    if (token.substr(pos).starts_with(settings_.replacement)) {
      if (!drops_space) out += ' ';
      pos += settings_.replacement.size();
    } else {
      out += token[pos++];
    }
  }
  next_->push({out});
}

void StripFrontDecode::push(const DecodeChunk& chunk) {
  DecodeChunk rest = chunk;
  if (rest.begins_token) left_ = count_;
  for (; left_ > 0 && rest.text.starts_with(content_); --left_) {
    rest.text.remove_prefix(content_.size());
  }
  if (!rest.text.empty()) left_ = 0;
  next_->push(rest);
}

void StripBackDecode::push_token(std::string_view token) {
  for (int64_t i = 0; i < count_ && token.ends_with(content_); ++i) {
    token.remove_suffix(content_.size());
  }
  next_->push({token});
}

void SpacedDecode::push_token(std::string_view token) {
  if (!is_first_) next_->push({" "});
  is_first_ = false;
  next_->push({token});
}

}  // namespace seer::io
