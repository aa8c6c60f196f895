#pragma once
// Files that stand where another one should be: what a clone or a download left instead of it.

#include <string>
#include <string_view>

namespace seer {

// For a message, behind the file's name: "is a git-lfs pointer ...: what to do". "" where `text`, the
// file or its first 200 bytes, is no such thing.
std::string stand_in(std::string_view text);
// The same where a web page may be what is meant (a text).
std::string lfs_pointer(std::string_view text);

}  // namespace seer
