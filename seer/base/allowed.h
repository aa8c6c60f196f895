#pragma once
// What a setting may be, and the one strict reader of its values: from the command line's words, from
// JSON and from C++ alike.

#include <filesystem>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "seer/base/error.h"

namespace seer {

enum class Kind { whole, real, text, yes_no };
template <class T>
inline constexpr Kind kKindOf = std::is_same_v<T, bool>       ? Kind::yes_no
                                : std::is_integral_v<T>       ? Kind::whole
                                : std::is_floating_point_v<T> ? Kind::real
                                                              : Kind::text;

// By default: every finite number, every text that is not empty.
struct Allowed {
  // Numbers.
  double least = -std::numeric_limits<double>::infinity();
  double most = std::numeric_limits<double>::infinity();
  bool without_least = false, without_most = false;
  int multiple_of = 1;
  std::vector<double> numbers;      // none: any within these bounds
  std::optional<double> automatic;  // one more value, which stands for a choice made elsewhere
  // Texts.
  std::vector<std::string> words;                             // none: any text
  std::function<std::string(const std::string& text)> wants;  // "", or what a text should have been
  bool may_be_empty = false;
  // Of a list.
  bool may_repeat = false;

  // "a whole number, 1 ... 9", "kl or mse"
  std::string expected(Kind kind) const;
  // For --help: the same without the type's name; "" where everything is allowed.
  std::string range_text() const;
  // Of a value of this kind: "", or a value that may have been meant, to add to a message.
  std::string suggestion(const nlohmann::json& value) const;
  bool takes(const nlohmann::json& value, Kind kind) const;
};

Allowed range(double least, double most);
Allowed at_least(double least);
Allowed above(double least, double most = std::numeric_limits<double>::infinity());
// least <= x < most
Allowed below(double least, double most);
Allowed one_of(std::vector<std::string> words);
Allowed one_of_numbers(std::vector<double> numbers);
Allowed multiple(int step, double least, double most);
// In a list whose places mean something: the same value may stand at several.
Allowed repeated(Allowed allowed);
// `value` as well, which stands for a choice made elsewhere.
Allowed or_automatic(Allowed allowed, double value);

// The whole of `text` as a number of this kind; nothing where it is not one, is not finite or too large.
std::optional<nlohmann::json> read_number(std::string_view text, Kind kind);

// A word as typed where it is plain, else in quotes with escapes.
std::string typed(const std::string& text);

// "a, b or c"
std::string listed(const std::vector<std::string>& words);
// "; did you mean X?" with the word that is nearest to `text`; "" where none is near.
std::string did_you_mean(const std::string& text, const std::vector<std::string>& words);

// Settings are described once, by each_setting(settings, visit) beside their struct: a call of
// visit(name, value, allowed, help) for each. Flags, JSON keys and --help come from that, and this:
// UsageError where a value is not allowed, as NaN never is.
struct CheckSetting {
  template <class T>
  void operator()(const char* name, const T& value, const Allowed& allowed,
                  const std::string& = "") const {
    if (allowed.takes(value, kKindOf<T>)) return;
    throw UsageError(message(name, " is ", value, ", want ", allowed.expected(kKindOf<T>)));
  }
  // Paths are looked at where they are used.
  void operator()(const char*, const std::filesystem::path&, const Allowed&,
                  const std::string& = "") const {}
  template <class T>
  void operator()(const char* name, const std::vector<T>& values, const Allowed& allowed,
                  const std::string& = "") const {
    for (const T& value : values) (*this)(name, value, allowed);
  }
};

}  // namespace seer
