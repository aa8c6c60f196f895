#include "seer/io/jinja/filters.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "seer/io/jinja/json_text.h"
#include "seer/io/jinja/python_text.h"
#include "seer/io/jinja/string_methods.h"

namespace seer::io::jinja {

namespace {

using Kind = Value::Kind;

Value trim(const Value& value, const Arguments& arguments) {
  arguments.check("trim", 1, {"chars"});
  const Value* characters = arguments.find(0, "chars");
  if (!characters || characters->is_none()) return strip(value.text(), true, true);
  return strip(value.text(), true, true, characters->string());
}

Value tojson(const Value& value, const Arguments& arguments) {
  arguments.check("tojson", 4, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  if (const Value* ascii = arguments.find(0, "ensure_ascii")) style.ensure_ascii = ascii->truth();
  const Value* indent = arguments.find(1, "indent");
  if (indent && !indent->is_none()) {
    style.indent =
        indent->is_string()
            ? indent->string()
            : std::string(static_cast<size_t>(std::clamp<int64_t>(indent->integer(), 0, 100)), ' ');
    style.item_separator = ",";
  }
  const Value* separators = arguments.find(2, "separators");
  if (separators && !separators->is_none()) {
    if (length(*separators) != 2) throw Failure("tojson() wants two separators");
    style.item_separator = separators->list().items[0].string();
    style.key_separator = separators->list().items[1].string();
  }
  if (const Value* sort = arguments.find(3, "sort_keys")) style.sort_keys = sort->truth();
  return to_json(value, style);
}

Value default_value(const Value& value, const Arguments& arguments) {
  arguments.check("default", 2, {"default_value", "boolean"});
  const Value* other = arguments.find(0, "default_value");
  const Value* boolean = arguments.find(1, "boolean");
  const bool is_missing = value.is_undefined() || (boolean && boolean->truth() && !value.truth());
  if (!is_missing) return value;
  return other ? *other : Value("");
}

Value to_integer(const Value& value, const Arguments& arguments) {
  arguments.check("int", 1, {"default"});
  if (value.is(Kind::number)) {
    if (!(std::abs(value.number()) < 9e18)) throw Failure("int of a number beyond 64 bits");
    return static_cast<int64_t>(value.number());
  }
  if (value.is_number()) return value.integer();
  const Value* missing = arguments.find(0, "default");
  if (value.is_string()) {
    const std::string text = strip(value.string(), true, true);
    const char* begin = text.data() + (text.size() > 1 && text[0] == '+');
    int64_t out = 0;
    const auto result = std::from_chars(begin, text.data() + text.size(), out);
    if (result.ec == std::errc() && result.ptr == text.data() + text.size()) return out;
    double number = 0;
    const auto real = std::from_chars(begin, text.data() + text.size(), number);
    if (real.ec == std::errc() && real.ptr == text.data() + text.size() &&
        std::abs(number) < 9e18) {
      return static_cast<int64_t>(number);
    }
  }
  return missing ? *missing : Value(0);
}

Value to_number(const Value& value, const Arguments& arguments) {
  arguments.check("float", 1, {"default"});
  if (value.is_number()) return value.number();
  const Value* missing = arguments.find(0, "default");
  if (value.is_string()) {
    const std::string text = strip(value.string(), true, true);
    const char* begin = text.data() + (text.size() > 1 && text[0] == '+');
    double out = 0;
    const auto result = std::from_chars(begin, text.data() + text.size(), out);
    if (result.ec == std::errc() && result.ptr == text.data() + text.size()) return out;
  }
  return missing ? *missing : Value(0.0);
}

Value absolute(const Value& value, const Arguments& arguments) {
  arguments.check("abs", 0);
  if (value.is(Kind::number)) return std::abs(value.number());
  if (value.integer() == INT64_MIN) throw Failure("a whole number grows beyond 64 bits");
  return std::abs(value.integer());
}

Value indent(const Value& value, const Arguments& arguments) {
  arguments.check("indent", 3, {"width", "first", "blank"});
  const Value* width = arguments.find(0, "width");
  const Value* first = arguments.find(1, "first");
  const Value* blank = arguments.find(2, "blank");
  const std::string step =
      width && width->is_string()
          ? width->string()
          : std::string(
                static_cast<size_t>(std::clamp<int64_t>(width ? width->integer() : 4, 0, 1000)),
                ' ');
  const std::string text = value.text();
  std::string out;
  for (size_t begin = 0, number = 0; begin <= text.size(); ++number) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    const bool is_wanted =
        number == 0 ? first && first->truth() : end > begin || (blank && blank->truth());
    out += (number ? "\n" : "") + (is_wanted ? step : "") + text.substr(begin, end - begin);
    out = checked(std::move(out));
    begin = end + 1;
  }
  return out;
}

Value replace_filter(const Value& value, const Arguments& arguments) {
  arguments.check("replace", 3, {"count"});
  const Value* most = arguments.find(2, "count");
  return replace(value.text(), arguments.required("replace", 0).text(),
                 arguments.required("replace", 1).text(),
                 most && !most->is_none() ? most->integer() : -1);
}

template <auto kFunction>
Value on_text(const Value& value, const Arguments& arguments) {
  arguments.check("the filter", 0);
  return kFunction(value.text());
}

Value to_text(const Value& value, const Arguments& arguments) {
  arguments.check("string", 0);
  return value.text();
}

Value count(const Value& value, const Arguments& arguments) {
  arguments.check("length", 0);
  return length(value);
}

struct Filter {
  std::string_view name;
  Value (*call)(const Value& value, const Arguments& arguments);
};

constexpr Filter kFilters[] = {{"trim", &trim},
                               {"tojson", &tojson},
                               {"default", &default_value},
                               {"d", &default_value},
                               {"int", &to_integer},
                               {"float", &to_number},
                               {"abs", &absolute},
                               {"indent", &indent},
                               {"replace", &replace_filter},
                               {"upper", &on_text<&to_upper>},
                               {"lower", &on_text<&to_lower>},
                               {"capitalize", &on_text<&capitalize>},
                               {"title", &on_text<&title>},
                               {"string", &to_text},
                               {"safe", &to_text},
                               {"length", &count},
                               {"count", &count}};

}  // namespace

Value apply_filter(std::string_view name, const Value& value, const Arguments& arguments) {
  for (const Filter& filter : kFilters) {
    if (filter.name == name) return filter.call(value, arguments);
  }
  if (auto out = apply_list_filter(name, value, arguments)) return *out;
  throw Failure("the filter " + std::string(name) + " is not supported");
}

}  // namespace seer::io::jinja
