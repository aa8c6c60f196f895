#pragma once
// Checked access to the fields of a JSON file from outside: an Error names the file, the place in it,
// what was expected and what came.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

namespace seer::io {

// A value and where it stands ("tokenizer.json: model.merges").
class JsonNode {
 public:
  // The reference must outlive the field.
  JsonNode(const nlohmann::json& json, std::string where)
      : json_(&json), where_(std::move(where)) {}

  const nlohmann::json& json() const { return *json_; }
  const std::string& where() const { return where_; }
  bool is_null() const { return json_->is_null(); }

  // A member that must be there.
  JsonNode at(std::string_view key) const;
  // A member that is missing or null gives nothing.
  std::optional<JsonNode> find(std::string_view key) const;
  // Element `index` of an array; checked.
  JsonNode at(size_t index) const;
  size_t array_size() const;

  const std::string& string() const;
  bool boolean() const;
  int64_t integer(int64_t low, int64_t high) const;
  // Members with a value for "missing or null".
  bool boolean_or(std::string_view key, bool missing) const;
  std::string string_or(std::string_view key, std::string missing) const;

  // "`where` is `kind` \"`value`\", supported: `list`"
  [[noreturn]] void unsupported(std::string_view kind, std::string_view value,
                                std::string_view list) const;
  [[noreturn]] void expected(std::string_view what) const;

 private:
  const nlohmann::json* json_;
  std::string where_;
};

// Parses a whole file; Error names it.
nlohmann::json parse_json_file(const std::string& path, std::string_view text);

// Text from a file, made fit for one line of an error message: cut, controls left out.
std::string quoted(std::string_view text);

}  // namespace seer::io
