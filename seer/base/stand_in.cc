#include "seer/base/stand_in.h"

#include <algorithm>

#include "seer/base/utf8.h"

namespace seer {

std::string lfs_pointer(std::string_view text) {
  if (!text.starts_with("version https://git-lfs")) return "";
  return "is a git-lfs pointer, not the file itself: run `git lfs pull` in its folder";
}

std::string stand_in(std::string_view text) {
  if (std::string pointer = lfs_pointer(text); !pointer.empty()) return pointer;
  text.remove_prefix(std::min(text.find_first_not_of("\xEF\xBB\xBF \t\r\n"), text.size()));
  const std::string begin = lower_ascii(text.substr(0, 16));
  if (begin.starts_with("<!doctype html") || begin.starts_with("<html") ||
      begin.starts_with("<?xml")) {
    return "is a web page, not the file itself: the download failed or asked for a login; get the "
           "file again";
  }
  return "";
}

}  // namespace seer
