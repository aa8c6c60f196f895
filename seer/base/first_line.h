#pragma once
// Messages of libraries: torch adds its call stack behind the first line.

#include <string>

namespace seer {

inline std::string first_line(const std::string& text) {
  return text.substr(0, text.find('\n'));
}

}  // namespace seer
