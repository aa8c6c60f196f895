#pragma once
// `normalizer` of tokenizer.json: what happens to a text before it is split.

#include <memory>
#include <string>

#include "seer/base/json.h"

namespace seer::io {

class Normalizer {
 public:
  virtual ~Normalizer() = default;
  // `text` is valid UTF-8 before and after. Thread-safe.
  virtual void normalize(std::string& text) const = 0;
};

// Error: a kind that is not supported (named, with the list).
std::unique_ptr<const Normalizer> read_normalizer(const JsonNode& field);

}  // namespace seer::io
