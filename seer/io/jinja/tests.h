#pragma once
// Tests: value is name(arguments).

#include <string_view>

#include "seer/io/jinja/value.h"

namespace seer::io::jinja {

// Failure: a test that is not supported (named).
bool apply_test(std::string_view name, const Value& value, const Arguments& arguments);

}  // namespace seer::io::jinja
