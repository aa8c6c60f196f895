#include "seer/io/tokenizer/decode_steps.h"

#include <algorithm>

#include "seer/base/utf8.h"
#include "seer/io/text.h"
#include "seer/io/tokenizer/byte_level.h"

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

bool may_begin_byte_token(std::string_view front) {
  constexpr std::string_view kFront = "<0x";
  return front.size() <= 6 &&
         front.substr(0, 3) == kFront.substr(0, std::min<size_t>(front.size(), 3));
}

}  // namespace

void ByteLevelDecode::push(const DecodeChunk& chunk) {
  if (chunk.begins_token && chunk.ends_token) {
    bytes_ += characters_to_bytes(chunk.text);
  } else {
    if (chunk.begins_token) reading_ = Reading::open;
    token_ += chunk.text;
    if (early_ && !chunk.ends_token) {
      settle();
    } else if (chunk.ends_token) {
      bytes_ += reading_ == Reading::as_text ? token_ : characters_to_bytes(token_);
      token_.clear();
    }
  }
  give(complete_size(bytes_), false);
}

void ByteLevelDecode::settle() {
  size_t same = 0;  // characters that are their own bytes read the same either way
  for (size_t pos = 0; reading_ == Reading::open && pos < token_.size();) {
    const char32_t character = next_code_point(token_, pos);
    if (!byte_of_character(character)) {
      reading_ = Reading::as_text;
    } else if (character >= 0x80 && is_byte_level_) {
      reading_ = Reading::as_bytes;
    } else if (character >= 0x80) {
      break;
    }
    same = pos;
  }
  if (reading_ == Reading::open) {
    bytes_ += token_.substr(0, same);
    token_.erase(0, same);
    return;
  }
  bytes_ += reading_ == Reading::as_text ? token_ : characters_to_bytes(token_);
  token_.clear();
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

void ReplaceDecode::push(const DecodeChunk& chunk) {
  const size_t most = budget_.left_of(given_);
  std::string text;
  if (chunk.begins_token && chunk.ends_token) {
    text = replacement_.apply(chunk.text, most);
  } else {
    text = pieces_.push(chunk.text, chunk.ends_token, most);
  }
  given_ += text.size();
  next_->push({text, chunk.begins_token, chunk.ends_token});
}

void ByteFallbackDecode::push(const DecodeChunk& chunk) {
  if (chunk.begins_token && chunk.ends_token) return push_token(chunk.text);
  if (chunk.begins_token) is_passing_ = false;
  if (is_passing_) return next_->push({chunk.text, false, chunk.ends_token});
  token_ += chunk.text;
  if (chunk.ends_token) {
    push_token(token_);
    token_.clear();
  } else if (!may_begin_byte_token(token_)) {
    end_run();
    next_->push({token_, true, false});
    token_.clear();
    is_passing_ = true;
  }
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

void MetaspaceDecode::push(const DecodeChunk& chunk) {
  const bool drops_space = is_first_ && settings_.prepend != MetaspaceSettings::Prepend::never;
  if (chunk.ends_token) is_first_ = false;
  std::string out;
  for (size_t pos = 0; pos < chunk.text.size();) {
    if (chunk.text.substr(pos).starts_with(settings_.replacement)) {
      if (!drops_space) out += ' ';
      pos += settings_.replacement.size();
    } else {
      out += chunk.text[pos++];
    }
  }
  next_->push({out, chunk.begins_token, chunk.ends_token});
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

void StripBackDecode::push(const DecodeChunk& chunk) {
  if (chunk.begins_token) kept_ = 0;
  std::string_view front = chunk.text;
  int64_t at_end = 0;
  for (; front.ends_with(content_); ++at_end) front.remove_suffix(content_.size());
  std::string out;
  const auto give_kept = [&](int64_t keep) {
    for (; kept_ > keep; --kept_) out += content_;
  };
  if (!front.empty()) {
    give_kept(0);
    out += front;
  }
  kept_ += at_end;
  give_kept(count_);
  next_->push({out, chunk.begins_token, chunk.ends_token});
}

void SpacedDecode::push(const DecodeChunk& chunk) {
  if (chunk.begins_token && !is_first_) next_->push({" "});
  is_first_ = false;
  next_->push(chunk);
}

}  // namespace seer::io
