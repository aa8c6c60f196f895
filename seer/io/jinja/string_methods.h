#pragma once
// Methods of str.

#include <optional>
#include <string>
#include <string_view>

#include "seer/io/jinja/value.h"

namespace seer::io::jinja {

// As method_of(), of a string.
std::optional<Value> string_method(const std::string& text, std::string_view name);

// Parts of str that filters need, too. Case is changed one code point at a time.
std::string to_lower(std::string text);
std::string to_upper(std::string text);
std::string capitalize(const std::string& text);
std::string title(
    const std::string& text);  // of Jinja's filter: words end at white space and -({[<
std::string replace(const std::string& text, const std::string& from, const std::string& to,
                    int64_t most);  // most < 0: all

}  // namespace seer::io::jinja
