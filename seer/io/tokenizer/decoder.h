#pragma once
// `decoder` of tokenizer.json: from tokens to text, at once or token by token.

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "seer/base/json.h"
#include "seer/io/tokenizer/replacement.h"
#include "seer/io/tokenizer/step_count.h"

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
  // No field: tokens with spaces between them. `is_byte_level`: the vocabulary has the characters that
  // stand for bytes. Error: a kind that is not supported (named, with list); too many steps.
  Decoder(const std::optional<JsonNode>& field, bool is_byte_level);

  // One text in the making. `early`: text is given as soon as it can be told. Without it, what turns
  // out to be broken is treated as a whole, as in the `tokenizers` library: a run of byte tokens that is
  // not UTF-8 is all U+FFFD, a fused token with a character that stands for no byte stays as it is.
  // Error: a token makes too much text.
  class Run {
   public:
    Run(const Decoder& decoder, bool early);
    void push(std::string_view token);
    void finish();
    // What came since the last call.
    std::string take();

   private:
    struct Shared {
      std::string text;
      TextBudget budget;
    };
    std::unique_ptr<Shared> shared_;                  // stays where it is when the run is moved
    std::vector<std::unique_ptr<DecodeStep>> steps_;  // last one first
  };

 private:
  struct How {
    DecodeStep* next;
    bool early;
    const TextBudget& budget;
  };
  using MakeStep = std::function<std::unique_ptr<DecodeStep>(const How& how)>;
  void read(const JsonNode& field, bool is_byte_level, StepCount& count);
  std::vector<MakeStep> makers_;
};

}  // namespace seer::io
