#include "seer/io/tokenizer/token_ids.h"

#include <algorithm>

#include "seer/base/error.h"
#include "seer/base/shown.h"

namespace seer::io {

void check_token_ids(std::span<const int32_t> ids, int64_t vocab_size, const std::string& where,
                     const Tokenizer* tokenizer) {
  const auto wrong =
      std::find_if(ids.begin(), ids.end(), [&](int32_t id) { return id < 0 || id >= vocab_size; });
  if (wrong == ids.end()) return;
  const std::string text = tokenizer ? tokenizer->decode({*wrong}, /*skip_special=*/false) : "";
  fail(where, ": token ", *wrong, text.empty() ? "" : " (" + shown(text) + ")",
       " is not in the model's vocabulary of ", vocab_size,
       "; take it out of the text, or give the tokenizer that the model was trained with");
}

}  // namespace seer::io
