#pragma once
// Documents from text files, good ones and broken ones.

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace seer::io {

// A place in a file.
struct Place {
  int64_t line = 1;  // from 1
  int64_t byte = 0;  // of the unpacked file, from 0
};

struct Document {
  std::string text;
  Place place;  // of its line's first byte
};

struct BrokenDocument {
  Place place;         // of the fault
  std::string reason;  // "is not UTF-8": what is said of the line
};

// Calls `take` with the text of every document: a .txt file (or any other ending) is one document; each
// line of .jsonl, .jsonl.zst, .json.zst is an object whose "text" field is one. Error: missing,
// empty, truncated or not UTF-8 (file, line, byte offset); a line that is not an object with "text".
void for_each_document(const std::filesystem::path& path,
                       const std::function<void(std::string&&)>& take);
// The same in the same order, but a line that is broken goes to `skip`. Error: missing, empty,
// truncated; a file of one document that is not UTF-8.
void for_each_document(const std::filesystem::path& path,
                       const std::function<void(Document&&)>& take,
                       const std::function<void(BrokenDocument&&)>& skip);

}  // namespace seer::io
