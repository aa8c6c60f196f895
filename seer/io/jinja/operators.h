#pragma once
// What operators, subscripts and attributes do to values; Failure where the types do not allow it.

#include <string_view>

#include "seer/io/jinja/value.h"

namespace seer::io::jinja {

// + - * / // % ** ~
Value apply_operator(std::string_view sign, const Value& left, const Value& right);
// == != < <= > >= in notin
bool compare(std::string_view sign, const Value& left, const Value& right);
bool contains(const Value& container, const Value& item);
Value negate(const Value& value);

// value.name: a method or attribute first, then an element. Undefined where there is none.
Value attribute_of(const Value& value, std::string_view name);
// value[key]: an element first. Undefined where there is none.
Value item_of(const Value& value, const Value& key);
// value[begin:end:step] of a list or string; none for a part that is not given.
Value slice_of(const Value& value, const Value& begin, const Value& end, const Value& step);

}  // namespace seer::io::jinja
