// Oniguruma's regular expressions rewritten for PCRE2. Only what means something else there changes:
// white space and word characters are spelled out, and constructs that differ beyond that are errors.
#include <string>
#include <string_view>
#include <vector>

#include "seer/base/error.h"
#include "seer/base/json.h"
#include "seer/base/shown.h"
#include "seer/io/tokenizer/regex.h"
#include "seer/io/tokenizer/unicode_age.h"

namespace seer::io {

namespace {

// Unicode's White_Space, and its complement, as the inside of a class. PCRE2's own \s has U+180E, too.
constexpr std::string_view kSpace =
    R"(\t-\r \x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
constexpr std::string_view kNotSpace =
    R"(\x{0}-\x{8}\x{e}-\x{1f}\x{21}-\x{84}\x{86}-\x{9f}\x{a1}-\x{167f}\x{1681}-\x{1fff})"
    R"(\x{200b}-\x{2027}\x{202a}-\x{202e}\x{2030}-\x{205e}\x{2060}-\x{2fff}\x{3001}-\x{10ffff})";
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{L}\p{M}\p{Nd}\p{Pc})";
// Latin-1's raised numbers and fractions, which Oniguruma counts as word characters outside of classes.
constexpr std::string_view kWordNumbers = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

class Translator {
 public:
  Translator(std::string_view pattern, const std::string& where)
      : pattern_(pattern), where_(where) {}

  std::string run() {
    while (pos_ < pattern_.size()) {
      const char c = pattern_[pos_];
      if (c == '{' && interval()) continue;
      if (c != '*' && c != '+' && c != '?' && c != ')') atom_ = out_.size();
      if (c == '\\') {
        escape(false);
      } else if (c == '[') {
        character_class();
      } else {
        group();
      }
    }
    return std::move(out_);
  }

 private:
  [[noreturn]] void refuse(std::string_view construct) const {
    fail(where_, ": the regular expression ", shown(pattern_), " uses ", construct,
         ", which is not supported");
  }

  void copy(size_t count) {
    out_.append(pattern_.substr(pos_, count));
    pos_ += count;
  }

  // {n}, {n,}, {,m}, {n,m} after an atom; false where the brace is a character. In Oniguruma a + behind
  // repeats the whole once more, where PCRE2 would make it possessive.
  bool interval() {
    const size_t end = pattern_.find('}', pos_);
    if (end == std::string_view::npos) return false;
    const std::string_view inside = pattern_.substr(pos_ + 1, end - pos_ - 1);
    const size_t comma = inside.find(',');
    if (inside.find_first_not_of("0123456789,") != std::string_view::npos || inside.empty() ||
        inside == "," || comma != inside.rfind(',')) {
      return false;
    }
    pos_ = end + 1;
    const std::string_view next = pattern_.substr(pos_, 1);
    if (next == "?" && comma == std::string_view::npos) refuse("{n}?");
    out_.append(comma == 0 ? "{0" : "{").append(inside).append("}");
    if (next == "+") {
      out_.insert(atom_, "(?:");
      out_.append(")");
    }
    return true;
  }

  // One character outside of classes; groups are checked for kinds that PCRE2 reads in another way.
  void group() {
    if (pattern_.substr(pos_, 2) == "(?") {
      const std::string_view rest = pattern_.substr(pos_ + 2);
      constexpr std::string_view kKnown = ":=!>#<i";
      if (rest.empty() || kKnown.find(rest[0]) == std::string_view::npos ||
          (rest[0] == 'i' && rest.substr(0, 2) != "i:")) {
        refuse(message("the group (?", rest.substr(0, 1)));
      }
    }
    if (pattern_[pos_] == '(') open_.push_back(out_.size());
    if (pattern_[pos_] == ')' && !open_.empty()) {
      atom_ = open_.back();
      open_.pop_back();
    }
    copy(1);
  }

  void escape(bool in_class) {
    if (pos_ + 1 == pattern_.size()) refuse("a lone backslash at its end");
    const char kind = pattern_[pos_ + 1];
    const auto put = [&](std::string_view inside) {
      out_.append(in_class ? "" : "[").append(inside).append(in_class ? "" : "]");
      pos_ += 2;
    };
    switch (kind) {
      case 's': return put(kSpace);
      case 'S': return put(kNotSpace);
      case 'w': return put(in_class ? word() : word().append(kWordNumbers));
      case 'W':
        if (in_class) refuse("\\W in a class");
        out_.append("[^").append(word()).append(kWordNumbers).append("]");
        pos_ += 2;
        return;
      case 'd': return category("Nd", false, in_class);
      case 'p':
      case 'P': return property(in_class);
      case 'b':
      case 'B':
      case 'h':
      case 'H':
      case 'X':
      case 'y':
      case 'Y':
      case 'K':
      case 'k':
      case 'g':
      case 'Q':
      case 'E':
      case 'C':
      case 'c':
      case 'M':
      case 'N':
      case 'O':
      case 'R':
      case 'G':
      case 'o':
      case 'u':
      case 'L':
      case 'U':
      case 'l': refuse(message("\\", kind));
      default: copy(2);
    }
  }

  // \\p{L} and the like. Names that are no general category are PCRE2's alone.
  void property(bool in_class) {
    const size_t end = pattern_.find('}', pos_);
    if (pattern_.substr(pos_ + 2, 1) != "{" || end == std::string_view::npos) {
      refuse(message("\\", pattern_[pos_ + 1], " without braces"));
    }
    const std::string_view name = pattern_.substr(pos_ + 3, end - pos_ - 3);
    const bool negative = pattern_[pos_ + 1] == 'P';
    if (negative && in_class) return copy(end + 1 - pos_);
    const size_t next = end + 1;
    category(name, negative, in_class);
    pos_ = next;
  }

  void category(std::string_view name, bool negative, bool in_class) {
    if (!in_class) out_.append(negative ? "[^" : "[");
    out_.append("\\p{").append(name).append("}").append(recent_members(name));
    if (!in_class) out_.append("]");
    pos_ += 2;
  }

  static std::string word() {
    std::string out(kWord);
    for (const char* name : {"L", "M", "Nd"}) out += recent_members(name);
    return out;
  }

  void character_class() {
    copy(1);
    if (pos_ < pattern_.size() && pattern_[pos_] == '^') copy(1);
    for (bool is_first = true;; is_first = false) {
      if (pos_ >= pattern_.size()) refuse("a class without its ]");
      const char c = pattern_[pos_];
      if (c == ']' && !is_first) return copy(1);
      if (c == ']') refuse("a class that begins with ]");
      if (c == '[') refuse("a class within a class");
      if (pattern_.substr(pos_, 2) == "&&") refuse("an intersection (&&) of classes");
      if (c == '\\') {
        escape(true);
      } else {
        copy(1);
      }
    }
  }

  std::string_view pattern_;
  const std::string& where_;
  size_t pos_ = 0;
  std::string out_;
  size_t atom_ = 0;           // where in out_ the last atom begins
  std::vector<size_t> open_;  // where the groups begin that are open
};

}  // namespace

std::string translate_regex(std::string_view pattern, const std::string& where) {
  return Translator(pattern, where).run();
}

}  // namespace seer::io
