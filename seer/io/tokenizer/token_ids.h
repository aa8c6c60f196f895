#pragma once
// Whether a model has the tokens of a text: a tokenizer may hold more of them than the model's
// vocabulary (an added <pad>).

#include <cstdint>
#include <span>
#include <string>

#include "seer/io/tokenizer/tokenizer.h"

namespace seer::io {

// Error: an id outside of a model's vocabulary of `vocab_size`. It names `where` (a file), the id and,
// where there is a tokenizer, the token's text.
void check_token_ids(std::span<const int32_t> ids, int64_t vocab_size, const std::string& where,
                     const Tokenizer* tokenizer);

}  // namespace seer::io
