#pragma once
// Cutting a text at delimiters: the `behavior` of Split and of its relatives.

#include <functional>
#include <string_view>

#include "seer/base/json.h"
#include "seer/io/tokenizer/regex.h"

namespace seer::io {

enum class DelimiterBehavior {
  removed,
  isolated,
  merged_with_previous,
  merged_with_next,
  contiguous
};

DelimiterBehavior read_delimiter_behavior(const JsonNode& field);

// Calls take(Match) for the parts of `text`, in order, none empty. `invert`: what lies between the
// matches is the delimiter.
void cut_at(const Regex& delimiter, DelimiterBehavior behavior, bool invert, std::string_view text,
            const std::function<void(const Match&)>& take);

}  // namespace seer::io
