#include "seer/io/jinja/json_text.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "seer/base/utf8.h"

namespace seer::io::jinja {

namespace {

constexpr int kDeepestValue = 100;  // nested lists and dicts

void append_escape(std::string& out, unsigned unit) {
  char text[16];
  std::snprintf(text, sizeof text, "\\u%04x", unit);
  out += text;
}

void append_string(std::string& out, const std::string& text, bool ensure_ascii) {
  out += '"';
  for (size_t pos = 0; pos < text.size();) {
    const size_t begin = pos;
    const char32_t c = next_code_point(text, pos);
    switch (c) {
      case '"': out += "\\\""; continue;
      case '\\': out += "\\\\"; continue;
      case '\n': out += "\\n"; continue;
      case '\r': out += "\\r"; continue;
      case '\t': out += "\\t"; continue;
      case '\b': out += "\\b"; continue;
      case '\f': out += "\\f"; continue;
    }
    if (c < 0x20 || (ensure_ascii && c > 0x7E && c < 0x10000)) {
      append_escape(out, static_cast<unsigned>(c));
    } else if (ensure_ascii && c >= 0x10000) {
      append_escape(out, static_cast<unsigned>(0xD800 + ((c - 0x10000) >> 10)));
      append_escape(out, static_cast<unsigned>(0xDC00 + ((c - 0x10000) & 0x3FF)));
    } else {
      out.append(text, begin, pos - begin);
    }
  }
  out += '"';
}

class Writer {
 public:
  explicit Writer(const JsonStyle& style) : style_(style) {}

  void write(const Value& value, int depth) {
    if (depth > kDeepestValue) throw Failure("tojson of a value that is nested too deep");
    switch (value.kind()) {
      case Value::Kind::none: out += "null"; return;
      case Value::Kind::boolean: out += value.integer() ? "true" : "false"; return;
      case Value::Kind::integer: out += value.text(); return;
      case Value::Kind::number: write_number(value.number()); return;
      case Value::Kind::string: append_string(out, value.string(), style_.ensure_ascii); return;
      case Value::Kind::list: write_list(value.list(), depth); return;
      case Value::Kind::dict: write_dict(value.dict(), depth); return;
      default: throw Failure("tojson of a value of type " + value.type_name());
    }
  }

  std::string out;

 private:
  void write_number(double number) {
    if (std::isnan(number)) {
      out += "NaN";
    } else if (std::isinf(number)) {
      out += number > 0 ? "Infinity" : "-Infinity";
    } else {
      out += number_text(number);
    }
  }

  void write_list(const List& list, int depth) {
    if (list.items.empty()) {
      out += "[]";
      return;
    }
    out += '[';
    for (size_t i = 0; i < list.items.size(); ++i) {
      if (i > 0) out += style_.item_separator;
      new_line(depth + 1);
      write(list.items[i], depth + 1);
    }
    new_line(depth);
    out += ']';
  }

  void write_dict(const Dict& dict, int depth) {
    if (dict.items.empty()) {
      out += "{}";
      return;
    }
    auto items = dict.items;
    if (style_.sort_keys) {
      std::stable_sort(items.begin(), items.end(),
                       [](const auto& a, const auto& b) { return a.first < b.first; });
    }
    out += '{';
    for (size_t i = 0; i < items.size(); ++i) {
      if (i > 0) out += style_.item_separator;
      new_line(depth + 1);
      write_key(items[i].first);
      out += style_.key_separator;
      write(items[i].second, depth + 1);
    }
    new_line(depth);
    out += '}';
  }

  void write_key(const Value& key) {
    if (key.is_string()) return append_string(out, key.string(), style_.ensure_ascii);
    if (!key.is_number() && !key.is_none())
      throw Failure("tojson with a key of type " + key.type_name());
    out += '"';
    write(key, 0);
    out += '"';
  }

  void new_line(int depth) {
    if (!style_.indent) return;
    out += '\n';
    for (int i = 0; i < depth; ++i) out += *style_.indent;
  }

  const JsonStyle& style_;
};

}  // namespace

std::string to_json(const Value& value, const JsonStyle& style) {
  Writer writer(style);
  writer.write(value, 0);
  return checked(std::move(writer.out));
}

std::string number_text(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  char text[64];
  // The shortest digits that give the number back; Python's choice of exponents.
  const auto end =
      std::to_chars(text, text + sizeof text, number, std::chars_format::scientific).ptr;
  const std::string scientific(text, end);
  const size_t mark = scientific.find('e');
  const int exponent = std::stoi(scientific.substr(mark + 1));
  if (number != 0 && (exponent < -4 || exponent >= 16)) return scientific;
  const auto fixed_end =
      std::to_chars(text, text + sizeof text, number, std::chars_format::fixed).ptr;
  std::string fixed(text, fixed_end);
  return fixed.find('.') == std::string::npos ? fixed + ".0" : fixed;
}

}  // namespace seer::io::jinja
