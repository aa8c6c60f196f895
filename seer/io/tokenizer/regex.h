#pragma once
// Regular expressions as tokenizer.json has them (Oniguruma's dialect), run by PCRE2 with JIT.

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace seer::io {

struct Match {
  size_t begin, end;  // bytes
};

class Regex {
 public:
  // Error names `where`, the pattern and what is wrong with it or not supported.
  Regex(std::string_view pattern, const std::string& where);
  // Matches of a plain text.
  static Regex literal(std::string_view text);

  // First match at or after `begin` of `text`, which must be valid UTF-8. Thread-safe. Error: a limit
  // of the matcher was reached.
  std::optional<Match> find(std::string_view text, size_t begin) const;

  // The same in a text of which more may follow: a match that more text could change does not count.
  // Where there is none, `*settled` is the place before which none can begin any more.
  std::optional<Match> find_settled(std::string_view text, size_t begin, size_t* settled) const;
  // How many characters before a match the pattern may look at.
  size_t looks_back() const;

  // Calls take(Match) for all matches from left to right; an empty one directly behind a match is left
  // out (as the `tokenizers` library does).
  template <class Take>
  void for_each(std::string_view text, const Take& take) const;

 private:
  struct Code;
  int match(std::string_view text, size_t begin, uint32_t options, Match* found) const;
  Regex(std::string_view pattern, const std::string& where, bool is_literal);
  std::shared_ptr<const Code> code_;
};

// The pattern in PCRE2's dialect; exposed for its test. Error: a construct whose meaning differs.
std::string translate_regex(std::string_view pattern, const std::string& where);

// Where to search on behind an empty match that was left out, or the same would come for ever.
inline size_t next_search(std::string_view text, size_t from) {
  ++from;
  while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xC0) == 0x80) ++from;
  return from;
}

template <class Take>
void Regex::for_each(std::string_view text, const Take& take) const {
  size_t from = 0;
  std::optional<size_t> last_end;
  while (from <= text.size()) {
    const std::optional<Match> match = find(text, from);
    if (!match) return;
    if (match->begin == match->end && last_end == match->end) {
      from = next_search(text, from);
      continue;
    }
    from = match->end;
    last_end = match->end;
    take(*match);
  }
}

}  // namespace seer::io
