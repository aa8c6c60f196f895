#pragma once
// `normalizer` of tokenizer.json: what happens to a text before it is split.

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "seer/base/json.h"

namespace seer::io {

class NormalizeStep {
 public:
  virtual ~NormalizeStep() = default;
  // `text` is valid UTF-8 before and after. Thread-safe. Error: it would become longer than `most`.
  virtual void apply(std::string& text, size_t most) const = 0;
};

class Normalizer {
 public:
  // No field: nothing is changed. Error: a kind that is not supported (named, with the list); too many
  // steps.
  explicit Normalizer(const std::optional<JsonNode>& field);
  bool changes_nothing() const { return steps_.empty(); }
  // The same promises. Error: the text grows too much.
  void normalize(std::string& text) const;

 private:
  std::vector<std::unique_ptr<const NormalizeStep>> steps_;
};

}  // namespace seer::io
