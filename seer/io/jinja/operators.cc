#include "seer/io/jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "seer/io/jinja/methods.h"

namespace seer::io::jinja {

namespace {

using Kind = Value::Kind;

[[noreturn]] void wrong_types(std::string_view sign, const Value& left, const Value& right) {
  for (const Value* value : {&left, &right}) {
    if (value->is_undefined()) value->string();  // fails with the name of what is missing
  }
  throw Failure("the operator " + std::string(sign) + " does not take " + left.type_name() +
                " and " + right.type_name());
}

// Python's // and %: towards minus infinity.
int64_t floor_divide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Value integer_operator(std::string_view sign, int64_t a, int64_t b) {
  int64_t out = 0;
  bool overflows = false;
  if (sign == "+") {
    overflows = __builtin_add_overflow(a, b, &out);
  } else if (sign == "-") {
    overflows = __builtin_sub_overflow(a, b, &out);
  } else if (sign == "*") {
    overflows = __builtin_mul_overflow(a, b, &out);
  } else if (sign == "**") {
    if (b < 0) return std::pow(static_cast<double>(a), static_cast<double>(b));
    out = 1;
    for (int64_t i = 0; i < b && !overflows && !(a == 0 && i > 0) && a != 1; ++i) {
      overflows = __builtin_mul_overflow(out, a, &out);
      if (a == -1 && i > 1) {
        out = b % 2 ? -1 : 1;
        break;
      }
    }
  } else {
    if (b == 0) throw Failure("division by zero");
    if (sign == "/") return static_cast<double>(a) / static_cast<double>(b);
    if (b == -1) {
      overflows = sign == "//" && __builtin_sub_overflow(int64_t{0}, a, &out);
    } else {
      out = sign == "//" ? floor_divide(a, b) : a - floor_divide(a, b) * b;
    }
  }
  if (overflows) throw Failure("a whole number grows beyond 64 bits");
  return out;
}

Value number_operator(std::string_view sign, double a, double b) {
  if (sign == "+") return a + b;
  if (sign == "-") return a - b;
  if (sign == "*") return a * b;
  if (sign == "**") return std::pow(a, b);
  if (b == 0) throw Failure("division by zero");
  if (sign == "/") return a / b;
  if (sign == "//") return std::floor(a / b);
  const double rest = std::fmod(a, b);
  return rest != 0 && (rest < 0) != (b < 0) ? rest + b : rest;
}

Value repeat(const std::string& text, int64_t count) {
  std::string out;
  if (count > 0 && text.size() > kLargestText / static_cast<size_t>(count)) {
    throw Failure("a text grows beyond all bounds");
  }
  for (int64_t i = 0; i < count && !text.empty(); ++i) out += text;
  return out;
}

Value concatenate(const List& left, const List& right) {
  auto items = left.items;
  items.insert(items.end(), right.items.begin(), right.items.end());
  return Value::list(std::move(items), left.is_tuple);
}

// A list index as Python counts it, or nothing where it is outside.
std::optional<size_t> index_in(int64_t index, size_t size) {
  if (index < 0) index += static_cast<int64_t>(size);
  if (index < 0 || index >= static_cast<int64_t>(size)) return std::nullopt;
  return static_cast<size_t>(index);
}

std::optional<Value> element_of(const Value& value, const Value& key) {
  if (value.is(Kind::dict)) {
    const Value* found = value.dict().find(key);
    return found ? std::optional<Value>(*found) : std::nullopt;
  }
  const bool is_index = key.is(Kind::integer) || key.is(Kind::boolean);
  if (is_index && value.is(Kind::list)) {
    const auto index = index_in(key.integer(), value.list().items.size());
    return index ? std::optional<Value>(value.list().items[*index]) : std::nullopt;
  }
  if (is_index && value.is_string()) {
    const auto characters = elements(value);
    const auto index = index_in(key.integer(), characters.size());
    return index ? std::optional<Value>(characters[*index]) : std::nullopt;
  }
  return std::nullopt;
}

void check_defined(const Value& value) {
  if (value.is_undefined()) value.string();  // fails with the name of what is missing
}

std::string name_of(const Value& value, const std::string& key) {
  return value.type_name() + "." + key;
}

}  // namespace

Value apply_operator(std::string_view sign, const Value& left, const Value& right) {
  if (sign == "~") return checked(left.text() + right.text());
  if (left.is_number() && right.is_number()) {
    if (left.is(Kind::number) || right.is(Kind::number)) {
      return number_operator(sign, left.number(), right.number());
    }
    return integer_operator(sign, left.integer(), right.integer());
  }
  if (sign == "+" && left.is_string() && right.is_string()) {
    return checked(left.string() + right.string());
  }
  if (sign == "+" && left.is(Kind::list) && right.is(Kind::list) &&
      left.list().is_tuple == right.list().is_tuple) {
    return concatenate(left.list(), right.list());
  }
  if (sign == "*" && left.is_string() && right.is(Kind::integer)) {
    return repeat(left.string(), right.integer());
  }
  if (sign == "*" && left.is(Kind::integer) && right.is_string()) {
    return repeat(right.string(), left.integer());
  }
  wrong_types(sign, left, right);
}

bool compare(std::string_view sign, const Value& left, const Value& right) {
  if (sign == "==") return left == right;
  if (sign == "!=") return !(left == right);
  if (sign == "<") return left < right;
  if (sign == ">") return right < left;
  if (sign == "<=") return left < right || left == right;
  if (sign == ">=") return right < left || left == right;
  if (sign == "in") return contains(right, left);
  if (sign == "notin") return !contains(right, left);
  throw Failure("the comparison " + std::string(sign) + " is not supported");
}

bool contains(const Value& container, const Value& item) {
  if (container.is_string()) {
    if (!item.is_string()) wrong_types("in", item, container);
    return container.string().find(item.string()) != std::string::npos;
  }
  if (container.is(Kind::dict)) return container.dict().find(item) != nullptr;
  const auto all = elements(container);
  return std::find(all.begin(), all.end(), item) != all.end();
}

Value negate(const Value& value) {
  if (value.is(Kind::number)) return -value.number();
  return integer_operator("-", 0, value.integer());
}

Value attribute_of(const Value& value, std::string_view name) {
  check_defined(value);
  if (const Object* object = value.object()) {
    if (auto found = object->attribute(name)) return *found;
  }
  if (auto method = method_of(value, name)) return *method;
  if (auto element = element_of(value, Value(name))) return *element;
  return Value::undefined(name_of(value, std::string(name)));
}

Value item_of(const Value& value, const Value& key) {
  check_defined(value);
  if (auto element = element_of(value, key)) return *element;
  if (!key.is_string()) return Value::undefined(name_of(value, key.text()));
  if (const Object* object = value.object()) {
    if (auto found = object->attribute(key.string())) return *found;
  }
  if (auto method = method_of(value, key.string())) return *method;
  return Value::undefined(name_of(value, key.string()));
}

Value slice_of(const Value& value, const Value& begin, const Value& end, const Value& step) {
  check_defined(value);
  if (!value.is(Kind::list) && !value.is_string()) {
    throw Failure("a value of type " + value.type_name() + " cannot be sliced");
  }
  const auto all = elements(value);
  const auto size = static_cast<int64_t>(all.size());
  const int64_t stride = step.is_none() ? 1 : step.integer();
  if (stride == 0) throw Failure("a slice with the step 0");
  const int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? size : size - 1;
  const auto bound = [&](const Value& part, int64_t missing) {
    if (part.is_none()) return missing;
    const int64_t index = part.integer();
    return std::clamp(index < 0 ? index + size : index, low, high);
  };
  const int64_t first = bound(begin, stride > 0 ? low : high);
  const int64_t last = bound(end, stride > 0 ? high : low);
  std::vector<Value> out;
  // Counted by how far the end is: a huge step must not overflow.
  const int64_t distance = stride > 0 ? last - first : first - last;
  const int64_t width = stride > 0 ? stride : stride == INT64_MIN ? INT64_MAX : -stride;
  for (int64_t at = 0; at < distance; at += width) {
    out.push_back(all[static_cast<size_t>(stride > 0 ? first + at : first - at)]);
    if (width > distance) break;
  }
  if (!value.is_string()) return Value::list(std::move(out), value.list().is_tuple);
  std::string text;
  for (const Value& character : out) text += character.string();
  return text;
}

}  // namespace seer::io::jinja
