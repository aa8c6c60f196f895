#include "seer/base/shown.h"

#include <cstdint>
#include <cstdio>

#include "seer/base/utf8.h"

namespace seer {
namespace {

// Characters that a terminal obeys (controls) or that change how their neighbours look (marks of
// direction, invisible ones).
bool is_hidden(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || (c >= 0x200B && c <= 0x200F) ||
         (c >= 0x2028 && c <= 0x202E) || (c >= 0x2060 && c <= 0x206F) || c == 0xFEFF;
}

void append_escape(std::string& out, const char* pattern, uint32_t value) {
  char text[16];
  std::snprintf(text, sizeof text, pattern, value);
  out += text;
}

void append_character(std::string& out, std::string_view text, size_t pos, bool escape_quotes) {
  size_t next = pos;
  const char32_t c = next_code_point(text, next);
  if (c == '\n') {
    out += "\\n";
  } else if (c == '\t') {
    out += "\\t";
  } else if (c == '\r') {
    out += "\\r";
  } else if (is_hidden(c)) {
    append_escape(out, "\\u%04x", c);
  } else {
    if (escape_quotes && (c == '"' || c == '\\')) out += '\\';
    out.append(text.substr(pos, next - pos));
  }
}

std::string escaped(std::string_view text, size_t longest, bool escape_quotes) {
  std::string out;
  for (size_t pos = 0; pos < text.size();) {
    if (out.size() >= longest) return out + "...";
    const Utf8Step step = utf8_step(text.substr(pos));
    if (step.valid) {
      append_character(out, text, pos, escape_quotes);
    } else {
      for (size_t i = 0; i < step.length; ++i) {
        append_escape(out, "\\x%02x", static_cast<unsigned char>(text[pos + i]));
      }
    }
    pos += step.length;
  }
  return out;
}

}  // namespace

std::string shown(std::string_view text, size_t longest) {
  return "\"" + escaped(text, longest, true) + "\"";
}

std::string one_line(std::string_view text, size_t longest) {
  return escaped(text, longest, false);
}

std::string first_line(std::string_view text) {
  return std::string(text.substr(0, text.find('\n')));
}

std::string counted(int64_t count, const std::string& noun, const std::string& many) {
  return std::to_string(count) + " " + (count == 1 ? noun : many.empty() ? noun + "s" : many);
}

}  // namespace seer
