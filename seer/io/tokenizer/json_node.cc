#include "seer/io/tokenizer/json_node.h"

#include "seer/base/error.h"
#include "seer/io/utf8.h"

namespace seer::io {

JsonNode JsonNode::at(std::string_view key) const {
  if (!json_->is_object()) expected("an object");
  const auto it = json_->find(key);
  SEER_CHECK(it != json_->end(), where_, " has no \"", key, "\"");
  return {*it, where_ + "." + std::string(key)};
}

std::optional<JsonNode> JsonNode::find(std::string_view key) const {
  if (!json_->is_object()) expected("an object");
  const auto it = json_->find(key);
  if (it == json_->end() || it->is_null()) return std::nullopt;
  return JsonNode{*it, where_ + "." + std::string(key)};
}

JsonNode JsonNode::at(size_t index) const {
  SEER_CHECK(index < array_size(), where_, " has ", array_size(), " elements, want more");
  return {(*json_)[index], where_ + "[" + std::to_string(index) + "]"};
}

size_t JsonNode::array_size() const {
  if (!json_->is_array()) expected("an array");
  return json_->size();
}

const std::string& JsonNode::string() const {
  if (!json_->is_string()) expected("a string");
  return json_->get_ref<const std::string&>();
}

bool JsonNode::boolean() const {
  if (!json_->is_boolean()) expected("true or false");
  return json_->get<bool>();
}

int64_t JsonNode::integer(int64_t low, int64_t high) const {
  const bool is_huge = json_->is_number_unsigned() && json_->get<uint64_t>() > INT64_MAX;
  if (!json_->is_number_integer() || is_huge || json_->get<int64_t>() < low ||
      json_->get<int64_t>() > high) {
    expected(message("a whole number from ", low, " to ", high));
  }
  return json_->get<int64_t>();
}

bool JsonNode::boolean_or(std::string_view key, bool missing) const {
  const auto field = find(key);
  return field ? field->boolean() : missing;
}

std::string JsonNode::string_or(std::string_view key, std::string missing) const {
  const auto field = find(key);
  return field ? field->string() : missing;
}

void JsonNode::unsupported(std::string_view kind, std::string_view value,
                           std::string_view list) const {
  fail(where_, " is the ", kind, " ", quoted(value), ", which is not supported; supported: ", list);
}

void JsonNode::expected(std::string_view what) const {
  fail(where_, " is ",
       quoted(json_->dump(-1, ' ', false, nlohmann::json::error_handler_t::replace)), ", want ",
       what);
}

namespace {

// Lists in lists, as deep as a file has them; real ones have six.
constexpr int kDeepest = 32;

bool is_deeper(const nlohmann::json& json, int limit) {
  if (!json.is_structured()) return false;
  if (limit == 0) return true;
  for (const auto& part : json) {
    if (is_deeper(part, limit - 1)) return true;
  }
  return false;
}

}  // namespace

nlohmann::json parse_json_file(const std::string& path, std::string_view text) {
  try {
    nlohmann::json json = nlohmann::json::parse(text);
    SEER_CHECK(!is_deeper(json, kDeepest), path, " is nested deeper than ", kDeepest, " levels");
    return json;
  } catch (const nlohmann::json::parse_error& error) {
    fail(path, " is not valid JSON at byte ", error.byte, "; get the file again");
  }
}

std::string quoted(std::string_view text) {
  constexpr size_t kLongest = 60;
  std::string out = "\"";
  for (size_t pos = 0; pos < text.size();) {
    if (out.size() > kLongest) {
      out += "...";
      break;
    }
    const Utf8Step step = utf8_step(text.substr(pos));
    const bool is_control = static_cast<unsigned char>(text[pos]) < 0x20 || text[pos] == 0x7F;
    out.append(!step.valid  ? kReplacementCharacter
               : is_control ? std::string_view(" ")
                            : text.substr(pos, step.length));
    pos += step.length;
  }
  return out + "\"";
}

}  // namespace seer::io
