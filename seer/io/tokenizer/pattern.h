#pragma once
// The `pattern` field of tokenizer.json: {"String": ...} or {"Regex": ...}.

#include <string>
#include <string_view>

#include "seer/base/json.h"
#include "seer/io/tokenizer/regex.h"

namespace seer::io {

inline Regex read_pattern(const JsonNode& field) {
  if (const auto text = field.find("String")) {
    if (text->string().empty()) text->expected("a text that is not empty");
    return Regex::literal(text->string());
  }
  if (const auto regex = field.find("Regex")) return Regex(regex->string(), regex->where());
  field.expected("{\"String\": ...} or {\"Regex\": ...}");
}

inline std::string replace_all(const Regex& pattern, std::string_view text,
                               std::string_view content) {
  std::string out;
  size_t from = 0;
  pattern.for_each(text, [&](const Match& match) {
    out.append(text.substr(from, match.begin - from)).append(content);
    from = match.end;
  });
  return out.append(text.substr(from));
}

}  // namespace seer::io
