// Documents of text and JSON-lines files, line by line, so that a file may be larger than memory.
#include "seer/io/text.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/io/byte_stream.h"

namespace seer::io {

namespace {

constexpr size_t kLongestLine = size_t{1} << 31;  // bytes; beyond it a file is damaged or hostile

struct Line {
  std::string_view text;
  size_t number;  // from 1
  size_t begin;   // byte offset in the unpacked file
};

void check_utf8(const std::string& path, const Line& line) {
  const size_t bad = find_invalid_utf8(line.text);
  SEER_CHECK(bad == std::string_view::npos, path, ": line ", line.number, " is not UTF-8 at byte ",
             line.begin + bad, " of the file (from 0, unpacked); convert it to UTF-8");
}

std::string text_of_line(const std::string& path, const Line& line) {
  check_utf8(path, line);
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(line.text);
  } catch (const nlohmann::json::parse_error& error) {
    fail(path, ": line ", line.number, " is not valid JSON at its byte ", error.byte);
  }
  const auto text = json.is_object() ? json.find("text") : json.end();
  SEER_CHECK(json.is_object() && text != json.end() && text->is_string(), path, ": line ",
             line.number, " must be a JSON object with a string \"text\"");
  return std::move(text->get_ref<std::string&>());
}

// Lines without their "\n"; a last line without one counts, too.
void for_each_line(const std::filesystem::path& path,
                   const std::function<void(const Line&)>& take) {
  const auto stream = open_byte_stream(path);
  std::string kept;
  size_t number = 0, begin = 0;
  const auto give = [&](std::string_view text) {
    take({text, ++number, begin});
    begin += text.size() + 1;
  };
  for (std::string_view bytes; !(bytes = stream->next()).empty();) {
    for (size_t end; (end = bytes.find('\n')) != std::string_view::npos;) {
      if (kept.empty()) {
        give(bytes.substr(0, end));
      } else {
        kept.append(bytes.substr(0, end));
        give(kept);
        kept.clear();
      }
      bytes.remove_prefix(end + 1);
    }
    kept.append(bytes);
    SEER_CHECK(kept.size() <= kLongestLine, path.string(), ": line ", number + 1,
               " is longer than ", kLongestLine, " bytes");
  }
  if (!kept.empty()) give(kept);
  SEER_CHECK(number > 0, path.string(), " is empty: it has no line");
}

}  // namespace

void for_each_document(const std::filesystem::path& path,
                       const std::function<void(std::string&&)>& take) {
  const std::string name = path.string();
  if (name.ends_with(".jsonl") || name.ends_with(".jsonl.zst") || name.ends_with(".json.zst")) {
    for_each_line(path, [&](const Line& line) { take(text_of_line(name, line)); });
    return;
  }
  std::string text = read_file(path);
  SEER_CHECK(!text.empty(), name, " is empty");
  size_t number = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    check_utf8(name, {std::string_view(text).substr(begin, end - begin), ++number, begin});
    begin = end + 1;
  }
  take(std::move(text));
}

}  // namespace seer::io
