#pragma once
// Filters: value | name(arguments).

#include <string_view>

#include "seer/io/jinja/value.h"

namespace seer::io::jinja {

// Failure: a filter that is not supported (named), wrong arguments.
Value apply_filter(std::string_view name, const Value& value, const Arguments& arguments);

// Filters of lists and dicts; the others stand in filters.cc. Nothing where there is none of the name.
std::optional<Value> apply_list_filter(std::string_view name, const Value& value,
                                       const Arguments& arguments);

}  // namespace seer::io::jinja
