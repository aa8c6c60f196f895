#pragma once
// Chat templates: the part of Jinja that they use, rendered as transformers does (trim_blocks and
// lstrip_blocks on, no escaping).

#include <map>
#include <string>
#include <string_view>

#include "seer/io/jinja/value.h"

namespace seer::io::jinja {

using Context = std::map<std::string, Value>;

// The text of a template. Error names `name`, the line and what is wrong: a construct that is not
// supported, a value of a wrong type, raise_exception() called by the template.
std::string render(std::string_view source, const std::string& name, const Context& context);

}  // namespace seer::io::jinja
