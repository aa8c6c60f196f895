#pragma once
// Where the Unicode versions of PCRE2 and utf8proc differ from those in the `tokenizers` library.

#include <string>
#include <string_view>

namespace seer::io {

// Inside of a regular expression's class: the code points of a general category ("L", "Nd") that came
// after Unicode 14, up to 16. Empty for other names.
std::string recent_members(std::string_view category);

// True for code points that the library's normalization, which is of Unicode 9, leaves alone: they
// neither decompose nor move nor compose.
bool is_inert(char32_t code_point);

}  // namespace seer::io
