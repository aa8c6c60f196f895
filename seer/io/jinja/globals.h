#pragma once
// Functions that every chat template may call: range, dict, namespace, raise_exception, strftime_now.

#include <map>
#include <string>

#include "seer/io/jinja/value.h"

namespace seer::io::jinja {

const std::map<std::string, Value>& globals();

}  // namespace seer::io::jinja
