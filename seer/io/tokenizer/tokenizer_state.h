#pragma once
// What a Tokenizer is made of: the steps between text and ids, in order.

#include <memory>
#include <optional>
#include <string>

#include "seer/io/tokenizer/added_tokens.h"
#include "seer/io/tokenizer/bpe.h"
#include "seer/io/tokenizer/decoder.h"
#include "seer/io/tokenizer/normalizer.h"
#include "seer/io/tokenizer/post_processor.h"
#include "seer/io/tokenizer/pre_tokenizer.h"
#include "seer/io/tokenizer/tokenizer.h"
#include "seer/io/tokenizer/tokenizer_config.h"

namespace seer::io {

struct Tokenizer::State {
  State(const JsonNode& root, TokenizerConfig config);

  // The token of an id, unless there is none or it is special and those are left out.
  const std::string* token_text(int32_t id, bool skip_special) const;
  std::optional<int32_t> token_id(std::string_view token) const;

  TokenizerConfig config;
  Normalizer normalizer;
  PreTokenizerPlan pre_tokenizer;
  Bpe bpe;
  AddedTokens added;
  PostProcessor post_processor;
  Decoder decoder;
  std::optional<int32_t> bos, eos;
};

}  // namespace seer::io
