#pragma once
// Words that are one token, for texts that are made up: whatever is drawn of them has a known length.

#include <cstdint>
#include <string>
#include <vector>

#include "seer/io/tokenizer/tokenizer.h"

namespace seer::io {

// Tokens of words of three or more small letters with their space before them, ascending. Error: there
// are fewer than 100 in a model's vocabulary of `vocab_size`; `what_to_do` ends its line.
std::vector<int32_t> word_tokens(const Tokenizer& tokenizer, int64_t vocab_size,
                                 const char* what_to_do);

// The word without its space.
std::string word_of(const Tokenizer& tokenizer, int32_t token);

}  // namespace seer::io
