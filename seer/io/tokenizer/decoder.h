#pragma once
// `decoder` of tokenizer.json: from tokens to text, at once or token by token.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "seer/base/json.h"

namespace seer::io {

// Part of a token on its way through the decoder; valid UTF-8.
struct DecodeChunk {
  std::string_view text;
  bool begins_token = true, ends_token = true;
};

// One step of a decoder. It gives chunks on as soon as no later token can change them.
class DecodeStep {
 public:
  explicit DecodeStep(DecodeStep* next) : next_(next) {}
  virtual ~DecodeStep() = default;
  virtual void push(const DecodeChunk& chunk) = 0;
  // No token follows.
  virtual void finish() { next_->finish(); }

 protected:
  DecodeStep* next_;  // nullptr in the last step alone
};

class Decoder {
 public:
  // No field: tokens with spaces between them. Error: a kind that is not supported (named, with list).
  explicit Decoder(const std::optional<JsonNode>& field);

  // One text in the making. `early`: the text of a complete character of byte tokens is given at once.
  // Without it, a run of byte tokens that is not UTF-8 as a whole is all U+FFFD, as in the
  // `tokenizers` library.
  class Run {
   public:
    Run(const Decoder& decoder, bool early);
    void push(std::string_view token);
    void finish();
    // What came since the last call.
    std::string take();

   private:
    std::unique_ptr<std::string> text_;               // stays where it is when the run is moved
    std::vector<std::unique_ptr<DecodeStep>> steps_;  // last one first
  };

 private:
  using MakeStep = std::function<std::unique_ptr<DecodeStep>(DecodeStep* next, bool early)>;
  void read(const JsonNode& field);
  std::vector<MakeStep> makers_;
};

}  // namespace seer::io
