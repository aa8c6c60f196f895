#pragma once
// The kinds of decoder that tokenizer.json may name, one class each.

#include <string>

#include "seer/io/tokenizer/decoder.h"
#include "seer/io/tokenizer/metaspace.h"
#include "seer/io/tokenizer/regex.h"

namespace seer::io {

// Byte-level tokens become bytes; what is not UTF-8 becomes U+FFFD. All tokens become one.
class ByteLevelDecode : public DecodeStep {
 public:
  using DecodeStep::DecodeStep;
  void push(const DecodeChunk& chunk) override;
  void finish() override;

 private:
  void give(size_t size, bool ends);
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

// A step that needs whole tokens.
class TokenStep : public DecodeStep {
 public:
  using DecodeStep::DecodeStep;
  void push(const DecodeChunk& chunk) override;

 protected:
  virtual void push_token(std::string_view token) = 0;

 private:
  std::string token_;
};

class ReplaceDecode : public TokenStep {
 public:
  ReplaceDecode(DecodeStep* next, Regex pattern, std::string content)
      : TokenStep(next), pattern_(std::move(pattern)), content_(std::move(content)) {}

 protected:
  void push_token(std::string_view token) override;

 private:
  Regex pattern_;
  std::string content_;
};

// Runs of byte tokens (<0xE2><0x82><0xAC>) become characters.
class ByteFallbackDecode : public TokenStep {
 public:
  ByteFallbackDecode(DecodeStep* next, bool early) : TokenStep(next), early_(early) {}
  void finish() override;

 protected:
  void push_token(std::string_view token) override;

 private:
  void push_byte(char byte);
  void give(std::string_view text);
  void end_run();
  bool early_;
  bool has_run_ = false;  // byte tokens were given on, and the token that they make is open
  std::string bytes_;
};

class MetaspaceDecode : public TokenStep {
 public:
  MetaspaceDecode(DecodeStep* next, const MetaspaceSettings& settings)
      : TokenStep(next), settings_(settings) {}

 protected:
  void push_token(std::string_view token) override;

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
class StripBackDecode : public TokenStep {
 public:
  StripBackDecode(DecodeStep* next, std::string content, int64_t count)
      : TokenStep(next), content_(std::move(content)), count_(count) {}

 protected:
  void push_token(std::string_view token) override;

 private:
  std::string content_;
  int64_t count_;
};

// A space between tokens: what a tokenizer without a decoder does.
class SpacedDecode : public TokenStep {
 public:
  using TokenStep::TokenStep;

 protected:
  void push_token(std::string_view token) override;

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
