#pragma once
// UTF-8 as bytes: steps through text that may be broken, code points of text that is not.

#include <cstddef>
#include <string>
#include <string_view>

namespace seer {

// What stands at the front of `text` (not empty): a character of `length` bytes, or, where `valid` is
// false, a maximal subpart of that many bytes (Unicode 15, section 3.9), which is read as one U+FFFD.
// `cut` says that the text ends inside a character that is right so far.
struct Utf8Step {
  size_t length = 1;
  bool valid = true;
  bool cut = false;
};
Utf8Step utf8_step(std::string_view text);

// Byte offset of the first byte that is not valid UTF-8, or npos.
size_t find_invalid_utf8(std::string_view text);

// Broken bytes replaced, one U+FFFD for each maximal subpart.
std::string replace_invalid_utf8(std::string_view text);

// Code point at `pos` of valid UTF-8; moves `pos` behind it.
char32_t next_code_point(std::string_view text, size_t& pos);
void append_utf8(std::string& out, char32_t code_point);

// A ... Z become a ... z, and nothing else changes.
std::string lower_ascii(std::string_view text);

// Unicode's White_Space.
bool is_white_space(char32_t code_point);

inline constexpr std::string_view kReplacementCharacter = "\xEF\xBF\xBD";

}  // namespace seer
