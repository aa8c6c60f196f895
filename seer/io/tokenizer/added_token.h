#pragma once
// A text that is one token wherever it stands, as tokenizer.json and the files beside it describe it.

#include <cstdint>
#include <string>

#include "seer/base/json.h"

namespace seer::io {

struct AddedToken {
  std::string content;
  std::string text;  // in a text: `content`, normalized where `is_normalized`
  int32_t id = -1;   // -1: not said
  bool is_special = false;
  bool single_word = false;                      // not within a word
  bool left_strip = false, right_strip = false;  // takes the white space beside it, too
  bool is_normalized = false;                    // looked for after the text was normalized
};

// The object of a token, but for its id. `special`: what it is where it does not say.
AddedToken read_added_token(const JsonNode& field, bool special);

}  // namespace seer::io
