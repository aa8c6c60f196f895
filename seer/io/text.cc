// Documents of text and JSON-lines files, line by line, so that a file may be larger than memory.
#include "seer/io/text.h"

#include <algorithm>
#include <utility>
#include <variant>

#include <nlohmann/json.hpp>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/utf8.h"
#include "seer/io/byte_stream.h"

namespace seer::io {

namespace {

constexpr size_t kLongestLine = size_t{1} << 31;  // bytes; beyond it a file is damaged or hostile

struct Line {
  std::string_view text;
  Place place;

  Place at(size_t byte) const { return {place.line, place.byte + static_cast<int64_t>(byte)}; }
};

std::variant<Document, BrokenDocument> document_of(const Line& line) {
  const size_t bad = find_invalid_utf8(line.text);
  if (bad != std::string_view::npos) return BrokenDocument{line.at(bad), "is not UTF-8"};
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(line.text);
  } catch (const nlohmann::json::parse_error& error) {
    return BrokenDocument{line.at(error.byte - 1), "is not valid JSON"};  // its bytes are from 1
  } catch (const nlohmann::json::out_of_range&) {
    return BrokenDocument{line.place, "has a number that is too large"};
  }
  const auto text = json.is_object() ? json.find("text") : json.end();
  if (!json.is_object() || text == json.end() || !text->is_string()) {
    return BrokenDocument{line.place, "is not a JSON object with a string \"text\""};
  }
  return Document{std::move(text->get_ref<std::string&>()), line.place};
}

[[noreturn]] void fail_broken(const std::string& path, const BrokenDocument& broken,
                              const char* remedy) {
  fail(path, ": line ", broken.place.line, " ", broken.reason, ", at byte ", broken.place.byte,
       " of the file (from 0, unpacked); ", remedy);
}

// Lines without their "\n"; a last line without one counts, too.
void for_each_line(const std::filesystem::path& path,
                   const std::function<void(const Line&)>& take) {
  const auto stream = open_byte_stream(path);
  std::string kept;
  Place next;
  const auto give = [&](std::string_view text) {
    take({text, next});
    next = {next.line + 1, next.byte + static_cast<int64_t>(text.size()) + 1};
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
    SEER_CHECK(kept.size() <= kLongestLine, path.string(), ": line ", next.line, " is longer than ",
               kLongestLine, " bytes");
  }
  if (!kept.empty()) give(kept);
  SEER_CHECK(next.line > 1, path.string(), " is empty: it has no line");
}

bool has_lines(const std::string& path) {
  return path.ends_with(".jsonl") || path.ends_with(".jsonl.zst") || path.ends_with(".json.zst");
}

// A file that is one document.
Document whole_document(const std::filesystem::path& path) {
  std::string text = read_file(path);
  SEER_CHECK(!text.empty(), path.string(), " is empty");
  const size_t bad = find_invalid_utf8(text);
  if (bad != std::string::npos) {
    const auto lines = std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(bad), '\n');
    fail_broken(path.string(), {{lines + 1, static_cast<int64_t>(bad)}, "is not UTF-8"},
                "convert it to UTF-8");
  }
  return {std::move(text), {}};
}

}  // namespace

void for_each_document(const std::filesystem::path& path,
                       const std::function<void(std::string&&)>& take) {
  for_each_document(
      path, [&](Document&& document) { take(std::move(document.text)); },
      [&](BrokenDocument&& broken) {
        fail_broken(path.string(), broken, "mend the line, or take it out");
      });
}

void for_each_document(const std::filesystem::path& path,
                       const std::function<void(Document&&)>& take,
                       const std::function<void(BrokenDocument&&)>& skip) {
  if (!has_lines(path.string())) return take(whole_document(path));
  for_each_line(path, [&](const Line& line) {
    auto document = document_of(line);
    if (auto* broken = std::get_if<BrokenDocument>(&document)) {
      skip(std::move(*broken));
    } else {
      take(std::move(std::get<Document>(document)));
    }
  });
}

}  // namespace seer::io
