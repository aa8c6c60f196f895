#include "seer/io/jinja/lexer.h"

#include <algorithm>
#include <array>
#include <cctype>

#include "seer/base/error.h"
#include "seer/base/utf8.h"
#include "seer/io/jinja/python_text.h"

namespace seer::io::jinja {

namespace {

using TokenKind = Token::Kind;

// Longer signs first.
constexpr std::array<std::string_view, 25> kSigns = {
    "//", "**", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
    "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ","};

// One kind of line end, and none at the end of the template.
std::string normalize_lines(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r') {
      out += '\n';
      if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
    } else {
      out += source[i];
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

bool is_name_byte(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || (c & 0x80);
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& name)
      : source_(normalize_lines(source)), name_(name) {}

  std::vector<Token> run() {
    while (pos_ < source_.size()) {
      const size_t tag = find_tag();
      if (tag == std::string::npos) {
        add_data(source_.substr(pos_));
        break;
      }
      open_tag(tag);
    }
    add(TokenKind::end, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void wrong(const std::string& what) const {
    fail(name_, ": line ", line_, ": ", what);
  }

  void add(TokenKind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  void add_data(std::string text) {
    if (!text.empty()) add(TokenKind::data, std::move(text));
  }

  void advance(size_t to) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<ptrdiff_t>(pos_),
                                         source_.begin() + static_cast<ptrdiff_t>(to), '\n'));
    pos_ = to;
  }

  bool at(std::string_view text, size_t pos) const {
    return std::string_view(source_).substr(pos).starts_with(text);
  }
  bool at(std::string_view text) const { return at(text, pos_); }

  size_t skip_space(size_t pos) const {
    while (pos < source_.size()) {
      size_t next = pos;
      if (!is_python_space(next_code_point(source_, next))) break;
      pos = next;
    }
    return pos;
  }

  size_t find_tag() const {
    for (size_t i = source_.find('{', pos_); i != std::string::npos; i = source_.find('{', i + 1)) {
      if (at("{%", i) || at("{{", i) || at("{#", i)) return i;
    }
    return std::string::npos;
  }

  // The text before a tag, trimmed as its sign (-, + or none) says.
  void close_data(size_t tag, bool is_variable) {
    const bool line_starting = pos_ == 0 || source_[pos_ - 1] == '\n';
    std::string text = source_.substr(pos_, tag - pos_);
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
    if (sign == '-') {
      text = strip(text, false, true);
    } else if (sign != '+' && !is_variable) {
      const size_t line = text.rfind('\n') + 1;  // 0 where there is no line end
      const bool is_blank = strip(text.substr(line), false, true).empty();
      if ((line > 0 || line_starting) && is_blank) text.resize(line);
    }
    add_data(std::move(text));
    advance(tag + 2 + (sign == '-' || sign == '+'));
  }

  void open_tag(size_t tag) {
    const char kind = source_[tag + 1];
    close_data(tag, kind == '{');
    if (kind == '#') return skip_comment();
    if (kind == '%' && open_raw()) return;
    const std::string_view end = kind == '%' ? "%}" : "}}";
    add(kind == '%' ? TokenKind::block_begin : TokenKind::variable_begin, "");
    open_.clear();
    while (!close_tag(end, kind == '%')) read_token();
    add(kind == '%' ? TokenKind::block_end : TokenKind::variable_end, "");
  }

  // Position behind an end tag that begins at `pos`, or npos; after a plain block end, a line end is
  // left out.
  size_t after_end(std::string_view end, bool trims, size_t pos) const {
    if (at("-", pos) && at(end, pos + 1)) return skip_space(pos + 1 + end.size());
    if (trims && at("+", pos) && at(end, pos + 1)) return pos + 1 + end.size();
    if (!at(end, pos)) return std::string::npos;
    pos += end.size();
    return trims && at("\n", pos) ? pos + 1 : pos;
  }

  bool close_tag(std::string_view end, bool trims) {
    advance(skip_space(pos_));
    if (pos_ == source_.size()) wrong(message("a tag without its ", end));
    if (!open_.empty()) return false;
    const size_t after = after_end(end, trims, pos_);
    if (after == std::string::npos) return false;
    advance(after);
    return true;
  }

  void skip_comment() {
    for (size_t i = pos_; i < source_.size(); ++i) {
      const size_t after = after_end("#}", true, i);
      if (after != std::string::npos) return advance(after);
    }
    wrong("a comment without its #}");
  }

  bool open_raw() {
    size_t pos = skip_space(pos_);
    if (!at("raw", pos)) return false;
    pos = after_end("%}", false, skip_space(pos + 3));
    if (pos == std::string::npos) return false;
    advance(pos);
    for (size_t tag = source_.find("{%", pos_); tag != std::string::npos;
         tag = source_.find("{%", tag + 1)) {
      const size_t sign = tag + 2 + (at("-", tag + 2) || at("+", tag + 2));
      const size_t word = skip_space(sign);
      if (!at("endraw", word)) continue;
      const size_t after = after_end("%}", true, skip_space(word + 6));
      if (after == std::string::npos) continue;
      close_data(tag, false);
      advance(after);
      return true;
    }
    wrong("a raw block without its endraw");
  }

  void read_token() {
    const char c = source_[pos_];
    if (std::isdigit(static_cast<unsigned char>(c))) return read_number();
    if (c == '"' || c == '\'') return read_string(c);
    if (is_name_byte(c)) {
      size_t end = pos_;
      while (end < source_.size() && is_name_byte(source_[end])) ++end;
      add(TokenKind::name, source_.substr(pos_, end - pos_));
      return advance(end);
    }
    const auto* sign = std::find_if(kSigns.begin(), kSigns.end(), [&](auto s) { return at(s); });
    if (sign == kSigns.end()) wrong(message("the character '", c, "' is not expected"));
    balance(sign->front());
    add(TokenKind::sign, std::string(*sign));
    advance(pos_ + sign->size());
  }

  void balance(char sign) {
    constexpr std::string_view kOpen = "{([", kClose = "})]";
    if (kOpen.find(sign) != std::string_view::npos) {
      open_ += kClose[kOpen.find(sign)];
    } else if (kClose.find(sign) != std::string_view::npos) {
      if (open_.empty() || open_.back() != sign) wrong(message("a '", sign, "' too much"));
      open_.pop_back();
    }
  }

  void read_number() {
    const auto digits = [&](size_t pos) {
      while (pos < source_.size() &&
             (std::isdigit(static_cast<unsigned char>(source_[pos])) || source_[pos] == '_')) {
        ++pos;
      }
      return pos;
    };
    const auto is_digit = [&](size_t pos) {
      return pos < source_.size() && std::isdigit(static_cast<unsigned char>(source_[pos]));
    };
    size_t end = digits(pos_);
    bool is_whole = true;
    const bool after_dot = pos_ > 0 && source_[pos_ - 1] == '.';
    if (!after_dot && at(".", end) && is_digit(end + 1)) {
      end = digits(end + 1);
      is_whole = false;
    }
    if (!after_dot && (at("e", end) || at("E", end))) {
      const size_t power = end + 1 + (at("+", end + 1) || at("-", end + 1));
      if (is_digit(power)) {
        end = digits(power);
        is_whole = false;
      }
    }
    std::string text = source_.substr(pos_, end - pos_);
    std::erase(text, '_');
    if (end < source_.size() && is_name_byte(source_[end])) {
      wrong(message("the number ", text, source_[end], " is not supported"));
    }
    add(is_whole ? TokenKind::integer : TokenKind::number, std::move(text));
    advance(end);
  }

  void read_string(char mark) {
    size_t end = pos_ + 1;
    while (end < source_.size() && source_[end] != mark) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) wrong("a string without its end");
    const std::string_view inside = std::string_view(source_).substr(pos_ + 1, end - pos_ - 1);
    const auto text = unescape(inside);
    if (!text) wrong("a string with an escape that is not valid");
    add(TokenKind::string, *text);
    advance(end + 1);
  }

  std::string source_;
  const std::string& name_;
  std::vector<Token> tokens_;
  std::string open_;  // closing signs that are due
  size_t pos_ = 0;
  int line_ = 1;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source, const std::string& name) {
  return Lexer(source, name).run();
}

}  // namespace seer::io::jinja
