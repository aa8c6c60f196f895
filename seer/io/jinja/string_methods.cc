#include "seer/io/jinja/string_methods.h"

#include <algorithm>
#include <array>

#include "seer/base/utf8.h"
#include "seer/io/jinja/python_text.h"
#include "seer/io/tokenizer/unicode_form.h"

namespace seer::io::jinja {

namespace {

using Method = Value (*)(const std::string& text, const Arguments& arguments);

std::optional<std::string_view> characters_of(const Arguments& arguments) {
  const Value* given = arguments.find(0, "");
  if (!given || given->is_none()) return std::nullopt;
  return given->string();
}

// True where `test` holds for the text, or for one of a tuple of texts.
template <class Test>
bool any_of(const Value& wanted, const Test& test) {
  if (wanted.is_string()) return test(wanted.string());
  const auto& items = wanted.list().items;
  return std::any_of(items.begin(), items.end(), [&](const Value& v) { return test(v.string()); });
}

std::vector<Value> split_at_space(std::string_view text, int64_t most) {
  std::vector<Value> out;
  for (;;) {
    const std::string rest = strip(text, true, false);
    text.remove_prefix(text.size() - rest.size());
    if (text.empty()) return out;
    if (most >= 0 && static_cast<int64_t>(out.size()) == most) {
      out.emplace_back(text);
      return out;
    }
    size_t end = 0;
    while (end < text.size()) {
      size_t next = end;
      if (is_python_space(next_code_point(text, next))) break;
      end = next;
    }
    out.emplace_back(text.substr(0, end));
    text.remove_prefix(end);
  }
}

std::vector<Value> split_at(std::string_view text, const std::string& separator, int64_t most) {
  if (separator.empty()) throw Failure("split() with an empty separator");
  std::vector<Value> out;
  for (size_t at; most != 0 && (at = text.find(separator)) != std::string_view::npos; --most) {
    out.emplace_back(text.substr(0, at));
    text.remove_prefix(at + separator.size());
  }
  out.emplace_back(text);
  return out;
}

std::vector<Value> split_from_end(std::string_view text, const std::string& separator,
                                  int64_t most) {
  if (separator.empty()) throw Failure("rsplit() with an empty separator");
  std::vector<Value> out;
  for (size_t at; most != 0 && (at = text.rfind(separator)) != std::string_view::npos; --most) {
    out.emplace_back(text.substr(at + separator.size()));
    text = text.substr(0, at);
  }
  out.emplace_back(text);
  std::reverse(out.begin(), out.end());
  return out;
}

Value split(const std::string& text, const Arguments& arguments) {
  arguments.check("split", 2, {"sep", "maxsplit"});
  const Value* separator = arguments.find(0, "sep");
  const Value* most_given = arguments.find(1, "maxsplit");
  const int64_t most = most_given ? most_given->integer() : -1;
  if (!separator || separator->is_none()) return Value::list(split_at_space(text, most));
  return Value::list(split_at(text, separator->string(), most));
}

Value rsplit(const std::string& text, const Arguments& arguments) {
  arguments.check("rsplit", 2, {"sep", "maxsplit"});
  const Value* most = arguments.find(1, "maxsplit");
  return Value::list(split_from_end(text, arguments.required("rsplit", 0, "sep").string(),
                                    most ? most->integer() : -1));
}

Value splitlines(const std::string& text, const Arguments& arguments) {
  arguments.check("splitlines", 0);
  if (text.find_first_of("\v\f\x1c\x1d\x1e") != std::string::npos) {
    throw Failure("splitlines() of a text with unusual line ends is not supported");
  }
  std::vector<Value> out;
  std::string line;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\n' && text[i] != '\r') {
      line += text[i];
      continue;
    }
    if (text[i] == '\r' && i + 1 < text.size() && text[i + 1] == '\n') ++i;
    out.emplace_back(std::exchange(line, {}));
  }
  if (!line.empty()) out.emplace_back(line);
  return Value::list(std::move(out));
}

Value join(const std::string& text, const Arguments& arguments) {
  arguments.check("join", 1);
  std::string out;
  bool is_first = true;
  for (const Value& item : elements(arguments.required("join", 0))) {
    if (!is_first) out += text;
    is_first = false;
    out = checked(std::move(out) + item.string());
  }
  return out;
}

Value find(const std::string& text, const Arguments& arguments) {
  arguments.check("find", 1);
  const size_t at = text.find(arguments.required("find", 0).string());
  return at == std::string::npos ? Value(-1) : Value(length(Value(text.substr(0, at))));
}

Value count(const std::string& text, const Arguments& arguments) {
  arguments.check("count", 1);
  const std::string& wanted = arguments.required("count", 0).string();
  if (wanted.empty()) return length(Value(text)) + 1;
  int64_t out = 0;
  for (size_t at = 0; (at = text.find(wanted, at)) != std::string::npos; at += wanted.size()) ++out;
  return out;
}

Value replace_method(const std::string& text, const Arguments& arguments) {
  arguments.check("replace", 3, {"count"});
  const Value* most = arguments.find(2, "count");
  return replace(text, arguments.required("replace", 0).string(),
                 arguments.required("replace", 1).string(), most ? most->integer() : -1);
}

bool is_ascii_digits(const std::string& text) {
  if (std::any_of(text.begin(), text.end(), [](char c) { return c & 0x80; })) {
    throw Failure("isdigit() of a text that is not ASCII is not supported");
  }
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

struct NamedMethod {
  std::string_view name;
  Method call;
};

template <bool kLeft, bool kRight>
Value strip_method(const std::string& text, const Arguments& arguments) {
  arguments.check("strip", 1);
  return strip(text, kLeft, kRight, characters_of(arguments));
}

Value starts_with(const std::string& text, const Arguments& arguments) {
  arguments.check("startswith", 1);
  return any_of(arguments.required("startswith", 0),
                [&](const std::string& front) { return text.starts_with(front); });
}

Value ends_with(const std::string& text, const Arguments& arguments) {
  arguments.check("endswith", 1);
  return any_of(arguments.required("endswith", 0),
                [&](const std::string& back) { return text.ends_with(back); });
}

Value remove_prefix(const std::string& text, const Arguments& arguments) {
  arguments.check("removeprefix", 1);
  const std::string& front = arguments.required("removeprefix", 0).string();
  return text.starts_with(front) ? text.substr(front.size()) : text;
}

Value remove_suffix(const std::string& text, const Arguments& arguments) {
  arguments.check("removesuffix", 1);
  const std::string& back = arguments.required("removesuffix", 0).string();
  return text.ends_with(back) ? text.substr(0, text.size() - back.size()) : text;
}

// A method without arguments.
template <auto kFunction>
Value plain(const std::string& text, const Arguments& arguments) {
  arguments.check("the string method", 0);
  return kFunction(text);
}

constexpr NamedMethod kMethods[] = {{"strip", &strip_method<true, true>},
                                    {"lstrip", &strip_method<true, false>},
                                    {"rstrip", &strip_method<false, true>},
                                    {"startswith", &starts_with},
                                    {"endswith", &ends_with},
                                    {"removeprefix", &remove_prefix},
                                    {"removesuffix", &remove_suffix},
                                    {"split", &split},
                                    {"rsplit", &rsplit},
                                    {"splitlines", &splitlines},
                                    {"join", &join},
                                    {"find", &find},
                                    {"count", &count},
                                    {"replace", &replace_method},
                                    {"upper", &plain<&to_upper>},
                                    {"lower", &plain<&to_lower>},
                                    {"capitalize", &plain<&capitalize>},
                                    {"isdigit", &plain<&is_ascii_digits>}};

// Methods that Python has, and templates might ask for.
constexpr std::array<std::string_view, 24> kRefused = {
    "title",     "format",     "format_map", "index",     "rfind",   "rindex",
    "partition", "rpartition", "center",     "ljust",     "rjust",   "zfill",
    "swapcase",  "casefold",   "expandtabs", "translate", "isalpha", "isalnum",
    "isspace",   "isupper",    "islower",    "isnumeric", "encode",  "isdecimal"};

}  // namespace

std::optional<Value> string_method(const std::string& text, std::string_view name) {
  for (const NamedMethod& method : kMethods) {
    if (method.name != name) continue;
    return Value::function(std::string(name), [text, call = method.call](const Arguments& a) {
      return call(text, a);
    });
  }
  if (std::find(kRefused.begin(), kRefused.end(), name) != kRefused.end()) {
    throw Failure("the string method " + std::string(name) + "() is not supported");
  }
  return std::nullopt;
}

std::string to_lower(std::string text) {
  to_lower_case(text);
  return text;
}

std::string to_upper(std::string text) {
  to_upper_case(text);
  return text;
}

std::string capitalize(const std::string& text) {
  size_t end = 0;
  if (!text.empty()) next_code_point(text, end);
  return to_upper(text.substr(0, end)) + to_lower(text.substr(end));
}

std::string title(const std::string& text) {
  std::string out;
  bool begins_word = true;
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = next_code_point(text, pos);
    const std::string character = text.substr(begin, pos - begin);
    out += begins_word ? to_upper(character) : to_lower(character);
    begins_word =
        is_python_space(c) ||
        (c < 0x80 && std::string_view("-({[<").find(static_cast<char>(c)) != std::string::npos);
  }
  return out;
}

std::string replace(const std::string& text, const std::string& from, const std::string& to,
                    int64_t most) {
  std::string out;
  size_t pos = 0;
  for (size_t at; most != 0 && (at = text.find(from, pos)) != std::string::npos; --most) {
    out.append(text, pos, at - pos).append(to);
    pos = at + from.size();
    if (from.empty()) {  // between all characters
      if (at == text.size()) break;
      next_code_point(text, pos);
      out.append(text, at, pos - at);
    }
    out = checked(std::move(out));
  }
  return pos < text.size() ? out.append(text, pos) : out;
}

}  // namespace seer::io::jinja
