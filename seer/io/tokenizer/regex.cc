#include "seer/io/tokenizer/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <algorithm>

#include "seer/base/error.h"
#include "seer/base/json.h"
#include "seer/base/shown.h"

namespace seer::io {

namespace {

// What a match needs besides the code; one for each thread, made at its first match.
struct Scratch {
  pcre2_match_data* data = pcre2_match_data_create(1, nullptr);
  pcre2_match_context* context = pcre2_match_context_create(nullptr);
  pcre2_jit_stack* stack = pcre2_jit_stack_create(32 << 10, 8 << 20, nullptr);

  Scratch() {
    SEER_CHECK(data && context && stack, "out of memory for a regular expression");
    pcre2_jit_stack_assign(context, nullptr, stack);
  }
  ~Scratch() {
    pcre2_jit_stack_free(stack);
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

std::string reason_of(int error) {
  unsigned char text[256];
  pcre2_get_error_message(error, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct Regex::Code {
  pcre2_code* code = nullptr;
  bool has_jit = false;
  std::string pattern, where;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::string_view pattern, const std::string& where) : Regex(pattern, where, false) {}

Regex Regex::literal(std::string_view text) {
  return Regex(text, "text", true);
}

Regex::Regex(std::string_view pattern, const std::string& where, bool is_literal) {
  auto code = std::make_shared<Code>();
  code->pattern = pattern;
  code->where = where;
  const std::string translated =
      is_literal ? std::string(pattern) : translate_regex(pattern, where);
  // Oniguruma's ^ and $ look at lines.
  const uint32_t options =
      PCRE2_UTF | PCRE2_NO_UTF_CHECK | (is_literal ? PCRE2_LITERAL : PCRE2_UCP | PCRE2_MULTILINE);
  int error = 0;
  PCRE2_SIZE at = 0;
  code->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(translated.data()), translated.size(),
                             options, &error, &at, nullptr);
  SEER_CHECK(code->code, where, ": the regular expression ", shown(pattern),
             " is not valid: ", reason_of(error));
  // Without JIT (a system that forbids it) the same matches are found, only later.
  code->has_jit = pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE) == 0;
  code_ = std::move(code);
}

int Regex::match(std::string_view text, size_t begin, uint32_t options, Match* found) const {
  thread_local const Scratch scratch;
  const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
  const int count = code_->has_jit && options == 0
                        ? pcre2_jit_match(code_->code, subject, text.size(), begin, 0, scratch.data,
                                          scratch.context)
                        : pcre2_match(code_->code, subject, text.size(), begin,
                                      PCRE2_NO_UTF_CHECK | options, scratch.data, scratch.context);
  if (count == PCRE2_ERROR_NOMATCH) return count;
  SEER_CHECK(count >= 0 || count == PCRE2_ERROR_PARTIAL, code_->where, ": the regular expression ",
             shown(code_->pattern), " failed on a text of ", text.size(),
             " bytes: ", reason_of(count));
  const PCRE2_SIZE* offsets = pcre2_get_ovector_pointer(scratch.data);
  *found = {offsets[0], offsets[1]};
  return count;
}

std::optional<Match> Regex::find(std::string_view text, size_t begin) const {
  Match found;
  return match(text, begin, 0, &found) >= 0 ? std::optional(found) : std::nullopt;
}

std::optional<Match> Regex::find_settled(std::string_view text, size_t begin,
                                         size_t* settled) const {
  Match found;
  const int count = match(text, begin, PCRE2_PARTIAL_HARD, &found);
  if (count >= 0) return found;
  *settled = count == PCRE2_ERROR_PARTIAL ? found.begin : text.size();
  return std::nullopt;
}

size_t Regex::looks_back() const {
  uint32_t characters = 0;
  pcre2_pattern_info(code_->code, PCRE2_INFO_MAXLOOKBEHIND, &characters);
  return std::max<size_t>(characters, 1);  // ^ looks at one, which is not counted
}

}  // namespace seer::io
