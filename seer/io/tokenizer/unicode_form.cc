#include "seer/io/tokenizer/unicode_form.h"

#include <utf8proc.h>

#include <string_view>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/utf8.h"
#include "seer/io/tokenizer/unicode_age.h"

namespace seer::io {

namespace {

bool is_ascii(char c) {
  return static_cast<unsigned char>(c) < 0x80;
}

utf8proc_option_t options_of(UnicodeForm form) {
  const int stable = UTF8PROC_STABLE;
  switch (form) {
    case UnicodeForm::nfc: return static_cast<utf8proc_option_t>(stable | UTF8PROC_COMPOSE);
    case UnicodeForm::nfd: return static_cast<utf8proc_option_t>(stable | UTF8PROC_DECOMPOSE);
    case UnicodeForm::nfkc:
      return static_cast<utf8proc_option_t>(stable | UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
    case UnicodeForm::nfkd:
      return static_cast<utf8proc_option_t>(stable | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
  }
  fail("unknown Unicode form");
}

void append_form(std::string& out, std::string_view text, utf8proc_option_t options) {
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data());
  const auto size = static_cast<utf8proc_ssize_t>(text.size());
  std::vector<utf8proc_int32_t> buffer(text.size() + 1);
  utf8proc_ssize_t count = utf8proc_decompose(bytes, size, buffer.data(),
                                              static_cast<utf8proc_ssize_t>(text.size()), options);
  if (count > static_cast<utf8proc_ssize_t>(text.size())) {
    buffer.resize(static_cast<size_t>(count) + 1);
    count = utf8proc_decompose(bytes, size, buffer.data(), count, options);
  }
  if (count >= 0) count = utf8proc_normalize_utf32(buffer.data(), count, options);
  SEER_CHECK(count >= 0, "cannot normalize a text of ", text.size(),
             " bytes: ", utf8proc_errmsg(count));
  for (utf8proc_ssize_t i = 0; i < count; ++i) {
    append_utf8(out, static_cast<char32_t>(buffer[static_cast<size_t>(i)]));
  }
}

// A run of characters, cut at those that stay as they are.
void append_run(std::string& out, std::string_view text, utf8proc_option_t options) {
  size_t done = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    if (!is_inert(next_code_point(text, pos))) continue;
    if (begin > done) append_form(out, text.substr(done, begin - done), options);
    out.append(text.substr(begin, pos - begin));
    done = pos;
  }
  if (done < text.size()) append_form(out, text.substr(done), options);
}

}  // namespace

void to_unicode_form(std::string& text, UnicodeForm form) {
  size_t pos = 0;
  while (pos < text.size() && is_ascii(text[pos])) ++pos;
  if (pos == text.size()) return;
  const utf8proc_option_t options = options_of(form);
  // ASCII stays as it is, and only the character before a mark can join with it: runs of other
  // characters are taken with the one ASCII character that stands before them.
  std::string out;
  out.reserve(text.size() + text.size() / 8);
  size_t done = 0;
  while (pos < text.size()) {
    const size_t begin = pos > done ? pos - 1 : pos;
    out.append(text, done, begin - done);
    while (pos < text.size() && !is_ascii(text[pos])) ++pos;
    append_run(out, std::string_view(text).substr(begin, pos - begin), options);
    done = pos;
    while (pos < text.size() && is_ascii(text[pos])) ++pos;
  }
  out.append(text, done);
  text = std::move(out);
}

void to_lower_case(std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, pos);
    if (c == 0x130) {  // the one code point whose full lower case has two
      out += "i\xCC\x87";
    } else {
      append_utf8(out, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(c))));
    }
  }
  text = std::move(out);
}

void to_upper_case(std::string& text) {
  std::string out;
  out.reserve(text.size());
  for (size_t pos = 0; pos < text.size();) {
    const char32_t c = next_code_point(text, pos);
    if (c == 0xDF) {
      out += "SS";
    } else {
      append_utf8(out, static_cast<char32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))));
    }
  }
  text = std::move(out);
}

}  // namespace seer::io
