#include "seer/io/json_fields.h"

#include "seer/base/error.h"
#include "seer/base/file.h"

namespace seer::io {
namespace {

// A value for an error message: short, on one line, whatever bytes it holds.
std::string shown(const nlohmann::json& value) {
  std::string text = value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace);
  constexpr size_t kLongest = 60;
  if (text.size() > kLongest) text = text.substr(0, kLongest) + "...";
  return text;
}

}  // namespace

JsonFields::JsonFields(const nlohmann::json& object, const std::string& where)
    : object_(object), where_(where) {
  SEER_CHECK(object.is_object(), where, ": expected a JSON object, found ", shown(object));
}

bool JsonFields::has(const char* key) const {
  const auto at = object_.find(key);
  return at != object_.end() && !at->is_null();
}

int64_t JsonFields::integer(const char* key, int64_t low, int64_t high) const {
  const std::string expected = message("a whole number from ", low, " to ", high);
  if (!has(key)) wrong(key, expected);
  const auto& value = object_.at(key);
  // Numbers beyond int64 are unsigned or floating in the parser: both are out of every range here.
  if (!value.is_number_integer()) wrong(key, expected);
  if (value.is_number_unsigned() && value.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
    wrong(key, expected);
  }
  const auto number = value.get<int64_t>();
  if (number < low || number > high) wrong(key, expected);
  return number;
}

int64_t JsonFields::integer_or(const char* key, int64_t low, int64_t high,
                               int64_t otherwise) const {
  return has(key) ? integer(key, low, high) : otherwise;
}

double JsonFields::number_or(const char* key, double low, double high, double otherwise) const {
  if (!has(key)) return otherwise;
  const auto& value = object_.at(key);
  const std::string expected = message("a number from ", low, " to ", high);
  if (!value.is_number()) wrong(key, expected);
  const double number = value.get<double>();
  if (!(number >= low && number <= high)) wrong(key, expected);
  return number;
}

bool JsonFields::boolean_or(const char* key, bool otherwise) const {
  if (!has(key)) return otherwise;
  if (!object_.at(key).is_boolean()) wrong(key, "true or false");
  return object_.at(key).get<bool>();
}

std::string JsonFields::text_or(const char* key, const std::string& otherwise) const {
  if (!has(key)) return otherwise;
  if (!object_.at(key).is_string()) wrong(key, "a string");
  return object_.at(key).get<std::string>();
}

void JsonFields::wrong(const char* key, const std::string& expected) const {
  const auto at = object_.find(key);
  fail(where_, ": \"", key, "\" is ", at == object_.end() ? std::string("missing") : shown(*at),
       ", expected ", expected);
}

nlohmann::json read_json_object(const std::string& path) {
  const std::string text = read_file(path);
  nlohmann::json json;
  try {
    json = nlohmann::json::parse(text);
  } catch (const nlohmann::json::parse_error& error) {
    fail(path, ": not valid JSON at byte ", error.byte, "; the file is damaged or not complete");
  }
  SEER_CHECK(json.is_object(), path, ": expected a JSON object, found ", shown(json));
  return json;
}

}  // namespace seer::io
