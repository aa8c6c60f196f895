#include "seer/base/json.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/limits.h"
#include "seer/base/shown.h"
#include "seer/base/stand_in.h"

namespace seer {
namespace {

// The end of the string that begins at `pos` with its quote: one past the closing quote.
size_t end_of_string(std::string_view text, size_t pos) {
  for (++pos; pos < text.size() && text[pos] != '"'; ++pos) {
    if (text[pos] == '\\') ++pos;
  }
  return std::min(pos + 1, text.size());
}

// The byte at which lists and objects are nested too deep, or npos. The parser needs no stack, but
// copies and destructors do.
size_t find_too_deep(std::string_view text) {
  // Most texts have fewer brackets than that, which is counted at once.
  const auto brackets =
      std::count(text.begin(), text.end(), '[') + std::count(text.begin(), text.end(), '{');
  if (brackets <= limits::kJsonDepth) return text.npos;
  int depth = 0;
  for (size_t pos = 0; (pos = text.find_first_of("[]{}\"", pos)) != text.npos;) {
    const char c = text[pos];
    if (c == '"') {
      pos = end_of_string(text, pos);
      continue;
    }
    depth += c == '[' || c == '{' ? 1 : -1;
    if (depth > limits::kJsonDepth) return pos;
    ++pos;
  }
  return text.npos;
}

bool is_beyond_double(const std::string& token) {
  if (token == "NaN" || token == "Infinity" || token == "-Infinity") return true;
  const bool is_number = token.find_first_not_of("+-.0123456789eE") == token.npos;
  char* end = nullptr;
  return is_number && !std::isfinite(std::strtod(token.c_str(), &end)) && *end == '\0';
}

// NaN, Infinity and numbers beyond a double put into quotes.
std::string quote_numbers(std::string_view text) {
  constexpr std::string_view kToken =
      "+-.0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
  std::string out;
  out.reserve(text.size() + 16);
  for (size_t pos = 0; pos < text.size();) {
    size_t end = pos + 1;
    if (text[pos] == '"') {
      end = end_of_string(text, pos);
      out.append(text.substr(pos, end - pos));
    } else if (kToken.find(text[pos]) != kToken.npos) {
      end = std::min(text.find_first_not_of(kToken, pos), text.size());
      const std::string token(text.substr(pos, end - pos));
      out += is_beyond_double(token) ? '"' + token + '"' : token;
    } else {
      out += text[pos];
    }
    pos = end;
  }
  return out;
}

// The value, or why there is none and at which byte.
nlohmann::json try_parse(std::string_view text, const nlohmann::json::parser_callback_t& watch,
                         JsonProblem* problem) {
  try {
    return nlohmann::json::parse(text.begin(), text.end(), watch);
  } catch (const nlohmann::json::parse_error& error) {
    *problem = {"is not valid JSON", std::max<size_t>(error.byte, 1) - 1};  // its bytes are from 1
  } catch (const nlohmann::json::exception&) {
    *problem = {"is not valid JSON: it has a number that is too large", 0};
  }
  return nlohmann::json::value_t::discarded;
}

}  // namespace

nlohmann::json parse_json(std::string_view text, std::string* problem,
                          const nlohmann::json::parser_callback_t& watch) {
  JsonProblem found;
  nlohmann::json json = parse_json(text, &found, watch);
  if (json.is_discarded()) *problem = message(found.what, " at byte ", found.byte + 1);
  return json;
}

nlohmann::json parse_json(std::string_view text, JsonProblem* problem,
                          const nlohmann::json::parser_callback_t& watch) {
  if (const size_t byte = find_too_deep(text); byte != text.npos) {
    *problem = {message("is nested deeper than ", limits::kJsonDepth, " levels"), byte};
    return nlohmann::json::value_t::discarded;
  }
  nlohmann::json json = try_parse(text, watch, problem);
  if (!json.is_discarded()) return json;
  const std::string quoted = quote_numbers(text);
  if (quoted.size() == text.size()) return json;  // nothing of that kind: the first reason holds
  JsonProblem second;
  nlohmann::json again = try_parse(quoted, watch, &second);
  return again.is_discarded() ? json : again;
}

nlohmann::json read_json(const std::filesystem::path& path) {
  const MappedFile file(path);
  const std::string name = one_line(path.string(), limits::kMessageLength);
  SEER_CHECK(file.size() <= limits::kJsonBytes, name, " has ", file.size(), " bytes, at most ",
             limits::kJsonBytes, " are read as JSON; is it the right file?");
  const std::string_view text(reinterpret_cast<const char*>(file.data()), file.size());
  if (const std::string other = stand_in(text); !other.empty()) fail(name, " ", other);
  std::string problem;
  nlohmann::json json = parse_json(text, &problem);
  SEER_CHECK(!json.is_discarded(), name, " ", problem,
             "; the file is damaged or not complete: get it again");
  return json;
}

std::string shown_value(const nlohmann::json& value) {
  constexpr size_t kLongest = 60;
  if (value.is_string()) return shown(value.get_ref<const std::string&>(), kLongest);
  return one_line(value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace), kLongest);
}

JsonNode JsonNode::member(const nlohmann::json& json, std::string_view key) const {
  const std::string name = one_line(key, 60);
  return {json, file_, path_.empty() ? name : path_ + "." + name};
}

JsonNode JsonNode::at(std::string_view key) const {
  if (!is_object()) expected("an object");
  const auto it = json_->find(key);
  SEER_CHECK(it != json_->end(), where(), path_.empty() ? ": " : " has no ", shown(key),
             path_.empty() ? " is missing" : "");
  return member(*it, key);
}

std::optional<JsonNode> JsonNode::find(std::string_view key) const {
  if (!is_object()) expected("an object");
  const auto it = json_->find(key);
  if (it == json_->end() || it->is_null()) return std::nullopt;
  return member(*it, key);
}

JsonNode JsonNode::at(size_t index) const {
  SEER_CHECK(index < array_size(), where(), " has ", array_size(), " elements, want more");
  return {(*json_)[index], file_, path_ + "[" + std::to_string(index) + "]"};
}

size_t JsonNode::array_size() const {
  if (!is_array()) expected("an array");
  return json_->size();
}

const std::string& JsonNode::string() const {
  if (!is_string()) expected("a string");
  return json_->get_ref<const std::string&>();
}

bool JsonNode::boolean() const {
  if (!json_->is_boolean()) expected("true or false");
  return json_->get<bool>();
}

int64_t JsonNode::integer(int64_t low, int64_t high) const {
  const std::string wanted = message("a whole number from ", low, " to ", high);
  int64_t number = 0;
  if (json_->is_number_float()) {
    const double value = json_->get<double>();
    constexpr double kExact = 9007199254740992;  // 2^53
    if (!(value >= -kExact && value <= kExact) || value != std::floor(value)) expected(wanted);
    number = static_cast<int64_t>(value);
  } else {
    const bool is_huge = json_->is_number_unsigned() && json_->get<uint64_t>() > INT64_MAX;
    if (!json_->is_number_integer() || is_huge) expected(wanted);
    number = json_->get<int64_t>();
  }
  if (number < low || number > high) expected(wanted);
  return number;
}

double JsonNode::number(double low, double high) const {
  const double value = json_->is_number() ? json_->get<double>() : NAN;
  if (!(value >= low && value <= high)) expected(message("a number from ", low, " to ", high));
  return value;
}

std::string JsonNode::string_or(std::string_view key, std::string missing) const {
  const auto field = find(key);
  return field ? field->string() : missing;
}

bool JsonNode::boolean_or(std::string_view key, bool missing) const {
  const auto field = find(key);
  return field ? field->boolean() : missing;
}

int64_t JsonNode::integer_or(std::string_view key, int64_t low, int64_t high,
                             int64_t missing) const {
  const auto field = find(key);
  return field ? field->integer(low, high) : missing;
}

double JsonNode::number_or(std::string_view key, double low, double high, double missing) const {
  const auto field = find(key);
  return field ? field->number(low, high) : missing;
}

void JsonNode::expected(std::string_view what) const {
  fail(where(), path_.empty() ? ": found " : " is ", shown_value(*json_), ", expected ", what);
}

void JsonNode::unsupported(std::string_view kind, std::string_view value,
                           std::string_view list) const {
  fail(where(), " is the ", kind, " ", shown(value), ", which is not supported; supported: ", list);
}

}  // namespace seer
