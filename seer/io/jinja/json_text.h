#pragma once
// Values as JSON text and numbers as text, as Python writes them.

#include <optional>
#include <string>

#include "seer/io/jinja/value.h"

namespace seer::io::jinja {

struct JsonStyle {
  bool ensure_ascii = false;
  bool sort_keys = false;
  std::optional<std::string> indent;  // one step of it
  std::string item_separator = ", ", key_separator = ": ";
};

// json.dumps(); Failure for values that JSON does not have.
std::string to_json(const Value& value, const JsonStyle& style);

// repr() of a float.
std::string number_text(double number);

}  // namespace seer::io::jinja
