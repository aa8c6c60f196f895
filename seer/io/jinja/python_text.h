#pragma once
// Python's view of text: white space, stripping, escapes in string literals.

#include <optional>
#include <string>
#include <string_view>

namespace seer::io::jinja {

// str.isspace() of one character: Unicode's White_Space and four separators of ASCII.
bool is_python_space(char32_t code_point);

// str.strip() and its halves: white space, or the characters in `characters`.
std::string strip(std::string_view text, bool left, bool right,
                  std::optional<std::string_view> characters = std::nullopt);

// The inside of a string literal; nothing where an escape is broken.
std::optional<std::string> unescape(std::string_view inside);

}  // namespace seer::io::jinja
