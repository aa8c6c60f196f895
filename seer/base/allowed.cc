#include "seer/base/allowed.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <cmath>
#include <utility>

#include "seer/base/error.h"
#include "seer/base/shown.h"

namespace seer {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// As people write it: 1000000, not 1e+06.
std::string number_text(double value) {
  char text[64];
  const bool is_whole = std::abs(value) < 1e15 && value == std::floor(value);
  const auto end = is_whole ? std::to_chars(text, text + sizeof text, static_cast<int64_t>(value))
                            : std::to_chars(text, text + sizeof text, value);
  return {text, end.ptr};
}

// Edits that turn one word into the other; two letters that changed places are one (Damerau).
size_t distance(const std::string& a, const std::string& b) {
  std::vector<std::vector<size_t>> d(a.size() + 1, std::vector<size_t>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] =
          std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1])});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
      }
    }
  }
  return d[a.size()][b.size()];
}

}  // namespace

std::string Allowed::range_text() const {
  if (!words.empty()) return listed(words);
  if (!numbers.empty()) {
    std::vector<std::string> texts;
    for (const double number : numbers) texts.push_back(number_text(number));
    return listed(texts);
  }
  std::string text;
  if (least > -kInfinity && most < kInfinity) {
    text = without_least ? message("above ", number_text(least), ", at most ", number_text(most))
                         : message(number_text(least), " ... ", number_text(most));
    if (without_most) text += ", " + number_text(most) + " not included";
  } else if (least > -kInfinity) {
    text = without_least ? "above " + number_text(least) : number_text(least) + " or more";
  }
  if (multiple_of > 1) text += message(", a multiple of ", multiple_of);
  if (automatic) text += ", or " + number_text(*automatic);
  return text;
}

std::string Allowed::expected(Kind kind) const {
  const std::string range = range_text();
  if (!words.empty() || !numbers.empty()) return range;
  if (kind == Kind::yes_no) return "true or false";
  if (kind == Kind::text) return "a text that is not empty";
  const std::string type = kind == Kind::whole ? "a whole number" : "a number";
  return range.empty() ? type : type + ", " + range;
}

bool Allowed::takes(const nlohmann::json& value, Kind kind) const {
  if (kind == Kind::yes_no) return value.is_boolean();
  if (kind == Kind::text) {
    if (!value.is_string()) return false;
    const auto& text = value.get_ref<const std::string&>();
    if (text.empty()) return may_be_empty;
    if (text.find('\0') != std::string::npos) return false;
    if (!words.empty()) return std::find(words.begin(), words.end(), text) != words.end();
    return true;
  }
  if (kind == Kind::whole ? !value.is_number_integer() : !value.is_number()) return false;
  const auto x = value.get<double>();
  if (!std::isfinite(x)) return false;
  if (automatic && x == *automatic) return true;
  if (!numbers.empty()) return std::find(numbers.begin(), numbers.end(), x) != numbers.end();
  if (without_least ? !(x > least) : !(x >= least)) return false;
  if (without_most ? !(x < most) : !(x <= most)) return false;
  return multiple_of == 1 || std::fmod(x, multiple_of) == 0;
}

std::string Allowed::suggestion(const nlohmann::json& value) const {
  if (value.is_string()) return did_you_mean(value.get<std::string>(), words);
  // A share that was given in percent.
  if (value.is_number() && least >= 0 && most == 1) {
    const auto x = value.get<double>();
    if (x > 1 && x < 100) return "; did you mean " + number_text(x / 100) + "?";
  }
  return "";
}

Allowed range(double least, double most) {
  Allowed allowed;
  allowed.least = least;
  allowed.most = most;
  return allowed;
}

Allowed at_least(double least) {
  return range(least, kInfinity);
}

Allowed above(double least, double most) {
  Allowed allowed = range(least, most);
  allowed.without_least = true;
  return allowed;
}

Allowed below(double least, double most) {
  Allowed allowed = range(least, most);
  allowed.without_most = true;
  return allowed;
}

Allowed one_of(std::vector<std::string> words) {
  Allowed allowed;
  allowed.words = std::move(words);
  return allowed;
}

Allowed one_of_numbers(std::vector<double> numbers) {
  Allowed allowed;
  allowed.numbers = std::move(numbers);
  return allowed;
}

Allowed multiple(int step, double least, double most) {
  Allowed allowed = range(least, most);
  allowed.multiple_of = step;
  return allowed;
}

Allowed repeated(Allowed allowed) {
  allowed.may_repeat = true;
  return allowed;
}

Allowed or_automatic(Allowed allowed, double value) {
  allowed.automatic = value;
  return allowed;
}

std::optional<nlohmann::json> read_number(std::string_view text, Kind kind) {
  const char* const end = text.data() + text.size();
  const auto read = [&](auto value) -> std::optional<nlohmann::json> {
    const auto [at, error] = std::from_chars(text.data(), end, value);
    if (error != std::errc() || at != end) return std::nullopt;
    return nlohmann::json(value);
  };
  if (kind == Kind::whole) {
    const auto whole = read(int64_t{0});
    return whole ? whole : read(uint64_t{0});
  }
  const auto real = read(0.0);
  return real && std::isfinite(real->get<double>()) ? real : std::nullopt;
}

std::string typed(const std::string& text) {
  const bool is_plain =
      !text.empty() && text.size() <= 60 &&
      std::all_of(text.begin(), text.end(), [](unsigned char c) {
        return std::isalnum(c) || std::string_view("._:/+-,=").find(c) != std::string_view::npos;
      });
  return is_plain ? text : shown(text);
}

std::string listed(const std::vector<std::string>& words) {
  std::string text;
  for (size_t i = 0; i < words.size(); ++i) {
    text += (i == 0 ? "" : i + 1 < words.size() ? ", " : " or ") + words[i];
  }
  return text;
}

std::string did_you_mean(const std::string& text, const std::vector<std::string>& words) {
  if (text.size() > 60) return "";  // no slip of a finger
  std::string nearest;
  size_t least = std::max<size_t>(1, text.size() / 3) + 1;
  for (const std::string& word : words) {
    const size_t edits = distance(text, word);
    if (edits < least) {
      least = edits;
      nearest = word;
    }
  }
  return nearest.empty() ? "" : "; did you mean " + nearest + "?";
}

}  // namespace seer
