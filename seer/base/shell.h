#pragma once
// Words of a command that can be pasted into a shell.

#include <string>
#include <string_view>

namespace seer {

// As it is where a shell reads it as one word, else in quotes: bash's $'...' where it holds what
// one_line() escapes (control characters, marks of direction, bytes that are not UTF-8).
std::string shell_word(std::string_view text);

}  // namespace seer
