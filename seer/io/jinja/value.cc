#include "seer/io/jinja/value.h"

#include <algorithm>

#include "seer/base/utf8.h"
#include "seer/io/jinja/json_text.h"

namespace seer::io::jinja {

namespace {

// repr() of a string: single quotes unless the text has some and no double ones.
std::string quote(const std::string& text) {
  const bool has_single = text.find('\'') != std::string::npos;
  const char mark = has_single && text.find('"') == std::string::npos ? '"' : '\'';
  std::string out(1, mark);
  for (const char c : text) {
    switch (c) {
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      case '\\': out += "\\\\"; break;
      default:
        if (c == mark) out += '\\';
        out += c;
    }
  }
  return out + mark;
}

}  // namespace

Value Value::none() {
  Value value;
  value.data_ = None{};
  return value;
}

Value Value::undefined(std::string name) {
  Value value;
  value.data_ = Undefined{std::move(name)};
  return value;
}

Value Value::list(std::vector<Value> items, bool is_tuple) {
  if (items.size() > kLongestList) throw Failure("a list grows beyond all bounds");
  Value value;
  value.data_ = std::make_shared<const List>(List{std::move(items), is_tuple});
  return value;
}

Value Value::dict(std::vector<std::pair<Value, Value>> items) {
  Value value;
  value.data_ = std::make_shared<const Dict>(Dict{std::move(items)});
  return value;
}

Value Value::function(std::string name, std::function<Value(const Arguments&)> call) {
  Value value;
  value.data_ = std::make_shared<const Function>(Function{std::move(name), std::move(call)});
  return value;
}

bool Value::is_number() const {
  return is(Kind::boolean) || is(Kind::integer) || is(Kind::number);
}

std::string Value::type_name() const {
  switch (kind()) {
    case Kind::undefined: return "undefined";
    case Kind::none: return "None";
    case Kind::boolean: return "bool";
    case Kind::integer: return "int";
    case Kind::number: return "float";
    case Kind::string: return "str";
    case Kind::list: return list().is_tuple ? "tuple" : "list";
    case Kind::dict: return "dict";
    case Kind::function: return "function";
    case Kind::object: return std::string(object()->type_name());
  }
  return "?";
}

void Value::wrong_kind(std::string_view wanted) const {
  if (const auto* missing = std::get_if<Undefined>(&data_)) {
    throw Failure("'" + missing->name + "' is undefined");
  }
  throw Failure("a value is of type " + type_name() + ", want " + std::string(wanted));
}

const std::string& Value::string() const {
  const auto* text = std::get_if<std::string>(&data_);
  if (!text) wrong_kind("str");
  return *text;
}

int64_t Value::integer() const {
  if (const auto* flag = std::get_if<bool>(&data_)) return *flag;
  const auto* value = std::get_if<int64_t>(&data_);
  if (!value) wrong_kind("int");
  return *value;
}

double Value::number() const {
  const auto* value = std::get_if<double>(&data_);
  if (!value && !is_number()) wrong_kind("a number");
  return value ? *value : static_cast<double>(integer());
}

const List& Value::list() const {
  const auto* value = std::get_if<std::shared_ptr<const List>>(&data_);
  if (!value) wrong_kind("list");
  return **value;
}

const Dict& Value::dict() const {
  const auto* value = std::get_if<std::shared_ptr<const Dict>>(&data_);
  if (!value) wrong_kind("dict");
  return **value;
}

const Function& Value::function() const {
  const auto* value = std::get_if<std::shared_ptr<const Function>>(&data_);
  if (!value) wrong_kind("something to call");
  return **value;
}

Object* Value::object() const {
  const auto* value = std::get_if<std::shared_ptr<Object>>(&data_);
  return value ? value->get() : nullptr;
}

bool Value::truth() const {
  switch (kind()) {
    case Kind::undefined:
    case Kind::none: return false;
    case Kind::boolean:
    case Kind::integer: return integer() != 0;
    case Kind::number: return number() != 0;
    case Kind::string: return !string().empty();
    case Kind::list: return !list().items.empty();
    case Kind::dict: return !dict().items.empty();
    default: return true;
  }
}

std::string Value::text() const {
  switch (kind()) {
    case Kind::undefined: return "";
    case Kind::string: return string();
    default: return repr();
  }
}

std::string Value::repr() const {
  switch (kind()) {
    case Kind::undefined: return "Undefined";
    case Kind::none: return "None";
    case Kind::boolean: return integer() ? "True" : "False";
    case Kind::integer: return std::to_string(integer());
    case Kind::number: return number_text(number());
    case Kind::string: return quote(string());
    case Kind::list: {
      const bool is_tuple = list().is_tuple;
      std::string out(1, is_tuple ? '(' : '[');
      for (size_t i = 0; i < list().items.size(); ++i) {
        out += (i ? ", " : "") + list().items[i].repr();
      }
      if (is_tuple && list().items.size() == 1) out += ',';
      return checked(out + (is_tuple ? ')' : ']'));
    }
    case Kind::dict: {
      std::string out = "{";
      for (const auto& [key, value] : dict().items) {
        out += (out.size() > 1 ? ", " : "") + key.repr() + ": " + value.repr();
      }
      return checked(out + "}");
    }
    default: throw Failure("a value of type " + type_name() + " cannot be printed");
  }
}

bool Value::operator==(const Value& other) const {
  if (is_number() && other.is_number()) {
    if (is(Kind::number) || other.is(Kind::number)) return number() == other.number();
    return integer() == other.integer();
  }
  if (kind() != other.kind()) return false;
  switch (kind()) {
    case Kind::string: return string() == other.string();
    case Kind::list:
      return list().is_tuple == other.list().is_tuple && list().items == other.list().items;
    case Kind::dict:
      return dict().items.size() == other.dict().items.size() &&
             std::all_of(dict().items.begin(), dict().items.end(), [&](const auto& item) {
               const Value* found = other.dict().find(item.first);
               return found && *found == item.second;
             });
    case Kind::function: return &function() == &other.function();
    case Kind::object: return object() == other.object();
    default: return true;
  }
}

bool Value::operator<(const Value& other) const {
  if (is_number() && other.is_number()) {
    if (is(Kind::number) || other.is(Kind::number)) return number() < other.number();
    return integer() < other.integer();
  }
  // Code points and the bytes of UTF-8 have the same order.
  if (is_string() && other.is_string()) return string() < other.string();
  if (is_undefined()) wrong_kind("");
  if (other.is_undefined()) other.wrong_kind("");
  throw Failure("values of types " + type_name() + " and " + other.type_name() + " have no order");
}

const Value* Dict::find(const Value& key) const {
  for (const auto& [name, value] : items) {
    if (name == key) return &value;
  }
  return nullptr;
}

const Value* Arguments::find(size_t position, std::string_view name) const {
  if (position < positional.size()) return &positional[position];
  for (const auto& [key, value] : named) {
    if (key == name && !name.empty()) return &value;
  }
  return nullptr;
}

void Arguments::check(std::string_view function, size_t most,
                      std::initializer_list<std::string_view> names) const {
  if (positional.size() > most) {
    throw Failure(std::string(function) + "() takes at most " + std::to_string(most) +
                  " arguments, got " + std::to_string(positional.size()));
  }
  for (const auto& [key, value] : named) {
    if (std::find(names.begin(), names.end(), key) == names.end()) {
      throw Failure(std::string(function) + "() with the argument " + key + "= is not supported");
    }
  }
}

const Value& Arguments::required(std::string_view function, size_t position,
                                 std::string_view name) const {
  const Value* value = find(position, name);
  if (!value) throw Failure(std::string(function) + "() lacks an argument");
  return *value;
}

std::vector<Value> elements(const Value& value) {
  std::vector<Value> out;
  switch (value.kind()) {
    case Value::Kind::undefined: break;
    case Value::Kind::list: return value.list().items;
    case Value::Kind::dict:
      for (const auto& item : value.dict().items) out.push_back(item.first);
      break;
    case Value::Kind::string:
      for (size_t pos = 0; pos < value.string().size();) {
        const size_t begin = pos;
        next_code_point(value.string(), pos);
        out.emplace_back(value.string().substr(begin, pos - begin));
      }
      break;
    default: throw Failure("a value of type " + value.type_name() + " cannot be iterated");
  }
  return out;
}

int64_t length(const Value& value) {
  switch (value.kind()) {
    case Value::Kind::undefined: return 0;
    case Value::Kind::list: return static_cast<int64_t>(value.list().items.size());
    case Value::Kind::dict: return static_cast<int64_t>(value.dict().items.size());
    case Value::Kind::string:
      return std::count_if(value.string().begin(), value.string().end(),
                           [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
    default: throw Failure("a value of type " + value.type_name() + " has no length");
  }
}

std::string checked(std::string text) {
  if (text.size() > kLargestText) throw Failure("a text grows beyond all bounds");
  return text;
}

}  // namespace seer::io::jinja
