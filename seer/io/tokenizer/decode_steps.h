#pragma once
// The kinds of decoder that tokenizer.json may name, one class each.

#include <string>

#include "seer/io/tokenizer/decoder.h"
#include "seer/io/tokenizer/metaspace.h"
#include "seer/io/tokenizer/replacement.h"

namespace seer::io {

// Byte-level tokens become bytes; what is not UTF-8 becomes U+FFFD. All tokens become one. A token with
// a character that stands for no byte is left as it is.
class ByteLevelDecode : public DecodeStep {
 public:
  // `early`: a token that comes in pieces is given on before it is known whether all of its characters
  // stand for bytes. `is_byte_level`: those that can, do.
  ByteLevelDecode(DecodeStep* next, bool early, bool is_byte_level)
      : DecodeStep(next), early_(early), is_byte_level_(is_byte_level) {}
  void push(const DecodeChunk& chunk) override;
  void finish() override;

 private:
  enum class Reading { open, as_bytes, as_text };
  void settle();
  void give(size_t size, bool ends);
  bool early_, is_byte_level_;
  Reading reading_ = Reading::open;
  std::string token_;  // of a token in pieces, what is not settled
  std::string bytes_;  // the front of a character
  bool has_begun_ = false;
};

// All tokens become one.
class FuseDecode : public DecodeStep {
 public:
  using DecodeStep::DecodeStep;
  void push(const DecodeChunk& chunk) override;
  void finish() override;

 private:
  bool has_begun_ = false;
};

class ReplaceDecode : public DecodeStep {
 public:
  ReplaceDecode(DecodeStep* next, Replacement replacement, const TextBudget& budget)
      : DecodeStep(next), replacement_(std::move(replacement)), budget_(budget) {}
  void push(const DecodeChunk& chunk) override;

 private:
  Replacement replacement_;
  const TextBudget& budget_;
  PieceReplacement pieces_{replacement_};
  size_t given_ = 0;
};

// Runs of byte tokens (<0xE2><0x82><0xAC>) become characters.
class ByteFallbackDecode : public DecodeStep {
 public:
  ByteFallbackDecode(DecodeStep* next, bool early) : DecodeStep(next), early_(early) {}
  void push(const DecodeChunk& chunk) override;
  void finish() override;

 private:
  void push_token(std::string_view token);
  void push_byte(char byte);
  void give(std::string_view text);
  void end_run();
  bool early_;
  bool has_run_ = false;  // byte tokens were given on, and the token that they make is open
  std::string bytes_;
  std::string token_;  // the front of a token in pieces, as long as it may be that of a byte
  bool is_passing_ = false;
};

class MetaspaceDecode : public DecodeStep {
 public:
  MetaspaceDecode(DecodeStep* next, const MetaspaceSettings& settings)
      : DecodeStep(next), settings_(settings) {}
  void push(const DecodeChunk& chunk) override;

 private:
  MetaspaceSettings settings_;
  bool is_first_ = true;
};

// Up to `count` characters `content` less at the front of each token.
class StripFrontDecode : public DecodeStep {
 public:
  StripFrontDecode(DecodeStep* next, std::string content, int64_t count)
      : DecodeStep(next), content_(std::move(content)), count_(count) {}
  void push(const DecodeChunk& chunk) override;

 private:
  std::string content_;
  int64_t count_, left_ = 0;
};

// The same at the end of each token.
class StripBackDecode : public DecodeStep {
 public:
  StripBackDecode(DecodeStep* next, std::string content, int64_t count)
      : DecodeStep(next), content_(std::move(content)), count_(count) {}
  void push(const DecodeChunk& chunk) override;

 private:
  std::string content_;
  int64_t count_, kept_ = 0;  // kept: characters at the end of what came, to be dropped or given
};

// A space between tokens: what a tokenizer without a decoder does.
class SpacedDecode : public DecodeStep {
 public:
  using DecodeStep::DecodeStep;
  void push(const DecodeChunk& chunk) override;

 private:
  bool is_first_ = true;
};

// The end of the chain: collects the text.
class CollectDecode : public DecodeStep {
 public:
  explicit CollectDecode(std::string* text) : DecodeStep(nullptr), text_(text) {}
  void push(const DecodeChunk& chunk) override { text_->append(chunk.text); }
  void finish() override {}

 private:
  std::string* text_;
};

}  // namespace seer::io
