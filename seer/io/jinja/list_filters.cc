// Filters that take or give lists.
#include <algorithm>

#include "seer/io/jinja/filters.h"
#include "seer/io/jinja/operators.h"
#include "seer/io/jinja/string_methods.h"
#include "seer/io/jinja/tests.h"

namespace seer::io::jinja {

namespace {

using Kind = Value::Kind;

// item.a.b for the path "a.b"; whole numbers are indices.
Value attribute_path(const Value& item, const Value& path) {
  if (!path.is_string()) return item_of(item, path);
  Value out = item;
  const std::string& text = path.string();
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('.', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    const bool is_index = !part.empty() && part.size() < 10 &&
                          part.find_first_not_of("0123456789") == std::string::npos;
    out = item_of(out, is_index ? Value(int64_t{std::stoll(part)}) : Value(part));
    begin = end + 1;
  }
  return out;
}

Arguments rest_of(const Arguments& arguments, size_t skipped) {
  Arguments rest = arguments;
  rest.positional.erase(
      rest.positional.begin(),
      rest.positional.begin() + static_cast<ptrdiff_t>(std::min(skipped, rest.positional.size())));
  return rest;
}

// select, reject: by a test of the item; selectattr, rejectattr: by one of its attribute.
Value select(const Value& value, const Arguments& arguments, bool by_attribute, bool wanted) {
  const size_t at = by_attribute ? 1 : 0;
  const Value* test = arguments.find(at, "");
  const Arguments rest = rest_of(arguments, at + 1);
  std::vector<Value> out;
  for (const Value& item : elements(value)) {
    const Value subject =
        by_attribute ? attribute_path(item, arguments.required("selectattr", 0)) : item;
    const bool holds = test ? apply_test(test->string(), subject, rest) : subject.truth();
    if (holds == wanted) out.push_back(item);
  }
  return Value::list(std::move(out));
}

Value map(const Value& value, const Arguments& arguments) {
  std::vector<Value> out;
  if (const Value* path = arguments.find(SIZE_MAX, "attribute")) {
    arguments.check("map", 0, {"attribute", "default"});
    const Value* missing = arguments.find(SIZE_MAX, "default");
    for (const Value& item : elements(value)) {
      const Value found = attribute_path(item, *path);
      out.push_back(found.is_undefined() && missing ? *missing : found);
    }
    return Value::list(std::move(out));
  }
  const std::string& filter = arguments.required("map", 0).string();
  for (const Value& item : elements(value)) {
    out.push_back(apply_filter(filter, item, rest_of(arguments, 1)));
  }
  return Value::list(std::move(out));
}

Value join(const Value& value, const Arguments& arguments) {
  arguments.check("join", 2, {"d", "attribute"});
  const Value* separator = arguments.find(0, "d");
  const Value* path = arguments.find(1, "attribute");
  std::string out;
  bool is_first = true;
  for (const Value& item : elements(value)) {
    if (!is_first && separator) out += separator->text();
    is_first = false;
    out = checked(std::move(out) + (path ? attribute_path(item, *path) : item).text());
  }
  return out;
}

// What sort, min, max and unique compare by: text without case unless asked.
struct Key {
  bool case_sensitive;
  const Value* path;
  Value operator()(const Value& item) const {
    const Value key = path ? attribute_path(item, *path) : item;
    return !case_sensitive && key.is_string() ? Value(to_lower(key.string())) : key;
  }
};

bool flag_of(const Arguments& arguments, size_t position, std::string_view name) {
  const Value* flag = arguments.find(position, name);
  return flag && flag->truth();
}

Value sort(const Value& value, const Arguments& arguments) {
  arguments.check("sort", 3, {"reverse", "case_sensitive", "attribute"});
  const Key key{flag_of(arguments, 1, "case_sensitive"), arguments.find(2, "attribute")};
  const bool reverse = flag_of(arguments, 0, "reverse");
  auto items = elements(value);
  std::stable_sort(items.begin(), items.end(), [&](const Value& a, const Value& b) {
    return reverse ? key(b) < key(a) : key(a) < key(b);
  });
  return Value::list(std::move(items));
}

Value extreme(const Value& value, const Arguments& arguments, bool wants_largest) {
  arguments.check("min", 2, {"case_sensitive", "attribute"});
  const Key key{flag_of(arguments, 0, "case_sensitive"), arguments.find(1, "attribute")};
  const auto items = elements(value);
  if (items.empty()) return Value::undefined("an element of an empty list");
  const Value* best = &items[0];
  for (const Value& item : items) {
    if (wants_largest ? key(*best) < key(item) : key(item) < key(*best)) best = &item;
  }
  return *best;
}

Value unique(const Value& value, const Arguments& arguments) {
  arguments.check("unique", 2, {"case_sensitive", "attribute"});
  const Key key{flag_of(arguments, 0, "case_sensitive"), arguments.find(1, "attribute")};
  std::vector<Value> out, seen;
  for (const Value& item : elements(value)) {
    Value k = key(item);
    if (std::find(seen.begin(), seen.end(), k) != seen.end()) continue;
    seen.push_back(std::move(k));
    out.push_back(item);
  }
  return Value::list(std::move(out));
}

Value sum(const Value& value, const Arguments& arguments) {
  arguments.check("sum", 2, {"attribute", "start"});
  const Value* path = arguments.find(0, "attribute");
  const Value* start = arguments.find(1, "start");
  Value out = start ? *start : Value(0);
  for (const Value& item : elements(value)) {
    out = apply_operator("+", out, path ? attribute_path(item, *path) : item);
  }
  return out;
}

Value reversed(const Value& value) {
  if (value.is_string()) return slice_of(value, Value::none(), Value::none(), -1);
  auto items = elements(value);
  std::reverse(items.begin(), items.end());
  return Value::list(std::move(items));
}

Value items_of(const Value& value) {
  if (value.is_undefined()) return Value::list({});
  std::vector<Value> out;
  for (const auto& [key, item] : value.dict().items) out.push_back(Value::list({key, item}, true));
  return Value::list(std::move(out));
}

Value dictsort(const Value& value, const Arguments& arguments) {
  arguments.check("dictsort", 3, {"case_sensitive", "by", "reverse"});
  const Key key{flag_of(arguments, 0, "case_sensitive"), nullptr};
  const Value* by = arguments.find(1, "by");
  const size_t at = by && by->string() == "value" ? 1 : 0;
  const bool reverse = flag_of(arguments, 2, "reverse");
  auto items = items_of(value).list().items;
  std::stable_sort(items.begin(), items.end(), [&](const Value& a, const Value& b) {
    const Value x = key(a.list().items[at]), y = key(b.list().items[at]);
    return reverse ? y < x : x < y;
  });
  return Value::list(std::move(items));
}

Value end_of(const Value& value, bool is_last) {
  const auto items = elements(value);
  if (items.empty()) return Value::undefined("an element of an empty list");
  return is_last ? items.back() : items.front();
}

}  // namespace

std::optional<Value> apply_list_filter(std::string_view name, const Value& value,
                                       const Arguments& arguments) {
  if (name == "select") return select(value, arguments, false, true);
  if (name == "reject") return select(value, arguments, false, false);
  if (name == "selectattr") return select(value, arguments, true, true);
  if (name == "rejectattr") return select(value, arguments, true, false);
  if (name == "map") return map(value, arguments);
  if (name == "join") return join(value, arguments);
  if (name == "sort") return sort(value, arguments);
  if (name == "min") return extreme(value, arguments, false);
  if (name == "max") return extreme(value, arguments, true);
  if (name == "unique") return unique(value, arguments);
  if (name == "sum") return sum(value, arguments);
  if (name == "dictsort") return dictsort(value, arguments);
  constexpr std::string_view kPlain[] = {"list", "first", "last", "reverse", "items"};
  if (std::find(std::begin(kPlain), std::end(kPlain), name) == std::end(kPlain)) {
    return std::nullopt;
  }
  arguments.check(name, 0);
  if (name == "list") return Value::list(elements(value));
  if (name == "first") return end_of(value, false);
  if (name == "last") return end_of(value, true);
  return name == "reverse" ? reversed(value) : items_of(value);
}

}  // namespace seer::io::jinja
