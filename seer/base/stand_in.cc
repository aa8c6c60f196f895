#include "seer/base/stand_in.h"

#include <algorithm>

namespace seer {
namespace {

bool begins_with(std::string_view text, std::string_view lower) {
  const auto same = [](char a, char b) {
    return (a >= 'A' && a <= 'Z' ? static_cast<char>(a + ('a' - 'A')) : a) == b;
  };
  return text.size() >= lower.size() && std::equal(lower.begin(), lower.end(), text.begin(),
                                                   [&](char b, char a) { return same(a, b); });
}

}  // namespace

std::string stand_in(std::string_view text) {
  if (text.starts_with("version https://git-lfs")) {
    return "is a git-lfs pointer, not the file itself: run `git lfs pull` in its folder";
  }
  text.remove_prefix(std::min(text.find_first_not_of("\xEF\xBB\xBF \t\r\n"), text.size()));
  if (begins_with(text, "<!doctype html") || begins_with(text, "<html") ||
      begins_with(text, "<?xml")) {
    return "is a web page, not the file itself: the download failed or asked for a login; get the "
           "file again";
  }
  return "";
}

}  // namespace seer
