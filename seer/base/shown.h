#pragma once
// Strings from outside (paths, names, values of files, messages of libraries), made fit for one line
// on a terminal.

#include <cstdint>
#include <string>
#include <string_view>

namespace seer {

// In quotes, cut after about `longest` bytes. What a terminal would obey or hide (control characters,
// marks of direction, bytes that are not UTF-8) and quotes are shown as escapes: \n, \u001b, \xff.
std::string shown(std::string_view text, size_t longest = 60);

// The same without quotes around it and without escapes for quotes and backslashes: a whole message.
std::string one_line(std::string_view text, size_t longest);

// Of a library's message: torch adds its call stack behind the first line.
std::string first_line(std::string_view text);

// "1 step", "2 steps". `many`: where that is not the noun with an s.
std::string counted(int64_t count, const std::string& noun, const std::string& many = "");

}  // namespace seer
