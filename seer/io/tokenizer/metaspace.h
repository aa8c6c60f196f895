#pragma once
// Settings of Metaspace, which is a pre-tokenizer and a decoder: SentencePiece's sign for a space.

#include <string>

#include "seer/base/json.h"

namespace seer::io {

struct MetaspaceSettings {
  enum class Prepend { always, never, first };
  std::string replacement;  // one character
  Prepend prepend = Prepend::always;
  bool split = true;
};

// A string of one character. Error: another one.
std::string read_character(const JsonNode& field);

MetaspaceSettings read_metaspace(const JsonNode& field);

}  // namespace seer::io
