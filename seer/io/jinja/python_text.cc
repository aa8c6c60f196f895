#include "seer/io/jinja/python_text.h"

#include "seer/base/utf8.h"

namespace seer::io::jinja {

namespace {

int digit_of(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  return c >= 'A' && c <= 'F' ? c - 'A' + 10 : 99;
}

// A number of up to `most` digits of `base` at the front of `text`, which it takes off.
char32_t take_digits(std::string_view& text, int base, size_t most, size_t& count) {
  char32_t value = 0;
  for (count = 0; count < most && !text.empty() && digit_of(text[0]) < base; ++count) {
    value = value * static_cast<char32_t>(base) + static_cast<char32_t>(digit_of(text[0]));
    text.remove_prefix(1);
  }
  return value;
}

}  // namespace

bool is_python_space(char32_t c) {
  return is_white_space(c) || (c >= 0x1C && c <= 0x1F);
}

std::string strip(std::string_view text, bool left, bool right,
                  std::optional<std::string_view> characters) {
  const auto is_stripped = [&](size_t begin, size_t end) {
    if (characters)
      return characters->find(text.substr(begin, end - begin)) != std::string_view::npos;
    size_t pos = begin;
    return is_python_space(next_code_point(text, pos));
  };
  while (left && !text.empty()) {
    size_t end = 0;
    next_code_point(text, end);
    if (!is_stripped(0, end)) break;
    text.remove_prefix(end);
  }
  while (right && !text.empty()) {
    size_t begin = text.size() - 1;
    while (begin > 0 && (static_cast<unsigned char>(text[begin]) & 0xC0) == 0x80) --begin;
    if (!is_stripped(begin, text.size())) break;
    text = text.substr(0, begin);
  }
  return std::string(text);
}

std::optional<std::string> unescape(std::string_view text) {
  constexpr std::string_view kLetters = "ntrbfav0\\'\"\n", kValues = "\n\t\r\b\f\a\v";
  std::string out;
  while (!text.empty()) {
    if (text[0] != '\\' || text.size() == 1) {
      out += text[0];
      text.remove_prefix(1);
      continue;
    }
    const char kind = text[1];
    text.remove_prefix(2);
    size_t count = 0;
    if (const size_t simple = kLetters.find(kind); simple < kValues.size()) {
      out += kValues[simple];
    } else if (kind == '\\' || kind == '\'' || kind == '"') {
      out += kind;
    } else if (kind == '\n') {
      continue;
    } else if (kind >= '0' && kind <= '7') {
      text = {text.data() - 1, text.size() + 1};
      append_utf8(out, take_digits(text, 8, 3, count));
    } else if (kind == 'x' || kind == 'u' || kind == 'U') {
      const size_t want = kind == 'x' ? 2 : kind == 'u' ? 4 : 8;
      const char32_t c = take_digits(text, 16, want, count);
      if (count != want || c > 0x10FFFF || (c >= 0xD800 && c < 0xE000)) return std::nullopt;
      append_utf8(out, c);
    } else if (kind == 'N') {
      return std::nullopt;
    } else {
      out += '\\';
      out += kind;
    }
  }
  return out;
}

}  // namespace seer::io::jinja
