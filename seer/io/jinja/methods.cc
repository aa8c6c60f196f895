#include "seer/io/jinja/methods.h"

#include "seer/io/jinja/string_methods.h"

namespace seer::io::jinja {

namespace {

Value items_of(const Dict& dict) {
  std::vector<Value> out;
  for (const auto& [key, value] : dict.items) out.push_back(Value::list({key, value}, true));
  return Value::list(std::move(out));
}

Value keys_of(const Value& dict) {
  return Value::list(elements(dict));
}

Value values_of(const Dict& dict) {
  std::vector<Value> out;
  for (const auto& item : dict.items) out.push_back(item.second);
  return Value::list(std::move(out));
}

std::optional<Value> dict_method(const Value& value, std::string_view name) {
  if (name == "items") {
    return Value::function("items", [value](const Arguments& arguments) {
      arguments.check("items", 0);
      return items_of(value.dict());
    });
  }
  if (name == "keys") {
    return Value::function("keys", [value](const Arguments& arguments) {
      arguments.check("keys", 0);
      return keys_of(value);
    });
  }
  if (name == "values") {
    return Value::function("values", [value](const Arguments& arguments) {
      arguments.check("values", 0);
      return values_of(value.dict());
    });
  }
  if (name == "get") {
    return Value::function("get", [value](const Arguments& arguments) {
      arguments.check("get", 2);
      const Value* found = value.dict().find(arguments.required("get", 0));
      if (found) return *found;
      const Value* missing = arguments.find(1, "");
      return missing ? *missing : Value::none();
    });
  }
  for (const char* refused : {"update", "pop", "popitem", "clear", "setdefault", "copy"}) {
    if (name == refused)
      throw Failure("the dict method " + std::string(name) + "() is not supported");
  }
  return std::nullopt;
}

std::optional<Value> list_method(std::string_view name) {
  for (const char* refused : {"append", "extend", "insert", "pop", "remove", "reverse", "sort",
                              "clear", "copy", "index", "count"}) {
    if (name == refused)
      throw Failure("the list method " + std::string(name) + "() is not supported");
  }
  return std::nullopt;
}

}  // namespace

std::optional<Value> method_of(const Value& value, std::string_view name) {
  switch (value.kind()) {
    case Value::Kind::string: return string_method(value.string(), name);
    case Value::Kind::dict: return dict_method(value, name);
    case Value::Kind::list: return list_method(name);
    default: return std::nullopt;
  }
}

}  // namespace seer::io::jinja
