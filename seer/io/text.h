#pragma once
// Documents from text files, and token files that training maps into memory.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace seer::io {

// Calls `take` with the text of every document: a .txt file (or any other ending) is one document; each
// line of .jsonl, .jsonl.zst, .json.zst is an object whose "text" field is one. Error: missing,
// empty, truncated or not UTF-8 (file, line, byte offset); a line that is not an object with "text".
void for_each_document(const std::filesystem::path& path,
                       const std::function<void(std::string&&)>& take);

// Byte offset of the first byte that is not valid UTF-8, or npos.
size_t find_invalid_utf8(std::string_view text);

}  // namespace seer::io
