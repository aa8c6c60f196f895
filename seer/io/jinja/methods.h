#pragma once
// Methods of strings and dicts: "text".strip(), message.items() ...

#include <optional>
#include <string_view>

#include "seer/io/jinja/value.h"

namespace seer::io::jinja {

// The method bound to `value`, or nothing where its type has none of that name. A method that Python has
// and that is not supported gives a Failure which names it.
std::optional<Value> method_of(const Value& value, std::string_view name);

}  // namespace seer::io::jinja
