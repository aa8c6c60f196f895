#pragma once
// The `pattern` and `content` fields of tokenizer.json: what is put in the place of what.

#include <optional>
#include <string>
#include <string_view>

#include "seer/base/json.h"
#include "seer/io/tokenizer/regex.h"

namespace seer::io {

// {"String": ...} or {"Regex": ...}
Regex read_pattern(const JsonNode& field);

// How much text steps may make of the text that came in: steps that each double it would never end.
class TextBudget {
 public:
  explicit TextBudget(size_t bytes = 0) : bytes_(bytes) {}
  void add(size_t bytes) { bytes_ += bytes; }
  // Bytes that may still come out where `given` have.
  size_t left_of(size_t given) const;

 private:
  size_t bytes_;
};

// Error, unless `is_within` the budget; `where` is the step.
void check_growth(bool is_within, const std::string& where);

class Replacement {
 public:
  // The fields `pattern` and `content` of `step`.
  explicit Replacement(const JsonNode& step);
  // Error: more than `most` bytes come out.
  std::string apply(std::string_view text, size_t most) const;

 private:
  friend class PieceReplacement;
  void append(std::string& out, std::string_view text, size_t most) const;
  Regex pattern_;
  std::string content_, where_;
};

// A replacement in a text that comes in pieces: what is given back no later piece can change.
class PieceReplacement {
 public:
  // `replacement` must outlive it.
  explicit PieceReplacement(const Replacement& replacement) : replacement_(replacement) {}
  // The next piece; after the last one of a text a new text begins.
  std::string push(std::string_view piece, bool is_last, size_t most);

 private:
  void forget_given();
  const Replacement& replacement_;
  std::string text_;   // what is not given, after what the pattern may look back at
  size_t from_ = 0;    // all before was given
  size_t search_ = 0;  // matches are looked for from here on
  std::optional<size_t> last_end_;
};

}  // namespace seer::io
