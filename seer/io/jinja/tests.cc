#include "seer/io/jinja/tests.h"

#include <optional>

#include "seer/io/jinja/operators.h"
#include "seer/io/jinja/string_methods.h"

namespace seer::io::jinja {

namespace {

using Kind = Value::Kind;

bool is_sequence(const Value& value) {
  return value.is(Kind::list) || value.is(Kind::dict) || value.is_string() || value.is_undefined();
}

std::optional<bool> test_kind(std::string_view name, const Value& value) {
  if (name == "defined") return !value.is_undefined();
  if (name == "undefined") return value.is_undefined();
  if (name == "none") return value.is_none();
  if (name == "string") return value.is_string();
  if (name == "mapping") return value.is(Kind::dict);
  if (name == "iterable" || name == "sequence") return is_sequence(value);
  if (name == "number") return value.is_number();
  if (name == "integer") return value.is(Kind::integer);
  if (name == "float") return value.is(Kind::number);
  if (name == "boolean") return value.is(Kind::boolean);
  if (name == "true") return value.is(Kind::boolean) && value.truth();
  if (name == "false") return value.is(Kind::boolean) && !value.truth();
  if (name == "callable") return value.is(Kind::function);
  if (name == "even") return value.integer() % 2 == 0;
  if (name == "odd") return value.integer() % 2 != 0;
  const auto has_case = [](const std::string& text) { return to_lower(text) != to_upper(text); };
  if (name == "lower") return has_case(value.text()) && to_lower(value.text()) == value.text();
  if (name == "upper") return has_case(value.text()) && to_upper(value.text()) == value.text();
  return std::nullopt;
}

// Names of comparisons, as tests and as operators.
constexpr std::pair<std::string_view, std::string_view> kComparisons[] = {
    {"==", "=="},         {"eq", "=="}, {"equalto", "=="}, {"!=", "!="},
    {"ne", "!="},         {"<", "<"},   {"lt", "<"},       {"lessthan", "<"},
    {"<=", "<="},         {"le", "<="}, {">", ">"},        {"gt", ">"},
    {"greaterthan", ">"}, {">=", ">="}, {"ge", ">="},      {"in", "in"}};

// `is sameas`: only constants of which there is one are safe to compare.
bool is_same(const Value& value, const Value& other) {
  if (value.kind() != other.kind()) return false;
  if (value.is_none() || value.is(Kind::boolean)) return value == other;
  throw Failure("the test sameas is supported for none, true and false alone");
}

}  // namespace

bool apply_test(std::string_view name, const Value& value, const Arguments& arguments) {
  if (const auto answer = test_kind(name, value)) {
    arguments.check(name, 0);
    return *answer;
  }
  for (const auto& [test, sign] : kComparisons) {
    if (test != name) continue;
    arguments.check(name, 1);
    return compare(sign, value, arguments.required(name, 0));
  }
  arguments.check(name, 1);
  if (name == "sameas") return is_same(value, arguments.required(name, 0));
  if (name == "divisibleby") {
    return apply_operator("%", value, arguments.required(name, 0)) == Value(0);
  }
  throw Failure("the test " + std::string(name) + " is not supported");
}

}  // namespace seer::io::jinja
