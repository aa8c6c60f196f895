#pragma once
// The one reader of JSON that comes from outside, and checked access to its values. An error names the
// file, the place in it, what was expected and what is there.

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace seer {

// Why a text is not JSON.
struct JsonProblem {
  std::string what;  // "is not valid JSON", "is nested deeper than 256 levels"
  size_t byte = 0;   // from 0
};

// The value of `text`. NaN, Infinity and numbers that no double holds, which Python writes, become
// strings of the same characters: they break nothing where they are not read. Of equal keys the last
// counts. On failure the result is discarded (is_discarded()) and `problem` says what is wrong, as a
// string "is not valid JSON at byte 17" (from 1).
// `watch` sees every value as nlohmann's parser callback does.
nlohmann::json parse_json(std::string_view text, JsonProblem* problem,
                          const nlohmann::json::parser_callback_t& watch = nullptr);
nlohmann::json parse_json(std::string_view text, std::string* problem,
                          const nlohmann::json::parser_callback_t& watch = nullptr);

// The same of a whole file. Error: cannot be read, larger than limits::kJsonBytes, not JSON.
nlohmann::json read_json(const std::filesystem::path& path);

// A value for a message: short, on one line, whatever it holds.
std::string shown_value(const nlohmann::json& value);

// The text of a value, for a file; what is not UTF-8 in it (names of files) becomes U+FFFD, where
// dump() alone would throw. `indent`: spaces; -1: one line.
template <class Json>
std::string json_text(const Json& value, int indent = -1) {
  return value.dump(indent, ' ', false, Json::error_handler_t::replace);
}

// A value and where it stands: "tokenizer.json: model.merges[3]".
class JsonNode {
 public:
  // `json` must outlive the node.
  JsonNode(const nlohmann::json& json, std::string file) : json_(&json), file_(std::move(file)) {}

  const nlohmann::json& json() const { return *json_; }
  // For the beginning of a message.
  std::string where() const { return path_.empty() ? file_ : file_ + ": " + path_; }
  const std::string& file() const { return file_; }

  bool is_null() const { return json_->is_null(); }
  bool is_object() const { return json_->is_object(); }
  bool is_array() const { return json_->is_array(); }
  bool is_string() const { return json_->is_string(); }

  // A member that must be there. Error: this is no object, or has none of that name.
  JsonNode at(std::string_view key) const;
  // A member; nothing where it is missing or null.
  std::optional<JsonNode> find(std::string_view key) const;
  bool has(std::string_view key) const { return find(key).has_value(); }
  // An element of an array; checked.
  JsonNode at(size_t index) const;
  size_t array_size() const;

  // The value. Error: another type, or outside of [low, high]. Whole numbers may be written as
  // floats (32.0).
  const std::string& string() const;
  bool boolean() const;
  int64_t integer(int64_t low, int64_t high) const;
  double number(double low, double high) const;

  // Members, with a value for "missing or null".
  std::string string_or(std::string_view key, std::string missing) const;
  bool boolean_or(std::string_view key, bool missing) const;
  int64_t integer_or(std::string_view key, int64_t low, int64_t high, int64_t missing) const;
  double number_or(std::string_view key, double low, double high, double missing) const;

  // "`where` is 3.5, expected `what`"
  [[noreturn]] void expected(std::string_view what) const;
  // "`where` is the `kind` "`value`", which is not supported; supported: `list`"
  [[noreturn]] void unsupported(std::string_view kind, std::string_view value,
                                std::string_view list) const;

 private:
  JsonNode(const nlohmann::json& json, std::string file, std::string path)
      : json_(&json), file_(std::move(file)), path_(std::move(path)) {}
  JsonNode member(const nlohmann::json& json, std::string_view key) const;

  const nlohmann::json* json_;
  std::string file_, path_;
};

}  // namespace seer
