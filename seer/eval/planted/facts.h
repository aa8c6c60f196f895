#pragma once
// Facts that are planted into texts: sentences with a value that nothing else in the text tells.

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "seer/base/random.h"
#include "seer/io/tokenizer/tokenizer.h"

namespace seer::eval {

// A fact in tokens: as it is told, and as a question with the answer behind it.
struct Fact {
  std::vector<int32_t> told, asked;
  int64_t told_value, asked_value;  // where the value's first token is in them
  int64_t value_size;               // its tokens
};

// "code", "question", ...: ways to tell and to ask a fact.
std::vector<std::string> wording_names();
// As name: "sentence" -> "question", for --help.
std::string wording_help();

class FactMaker {
 public:
  // Error: a wording of words, and the tokenizer has fewer than 100 of one token.
  FactMaker(const io::Tokenizer& tokenizer, int64_t vocab_size, std::vector<std::string> wordings);

  // A fact about something that is not in `taken`, where it is put. The value's tokens are those that hold
  // its characters, whatever their number: many tokenizers join digits. Error: they join the value with
  // what stands beside it, a token is beyond the vocabulary, or as many things are taken as there are.
  Fact make(const std::string& wording, std::set<std::string>& taken, Random& random) const;

  // Different things that a wording's facts can be about.
  int64_t things(const std::string& wording) const;

 private:
  const io::Tokenizer& tokenizer_;
  int64_t vocab_size_;
  std::vector<int32_t> words_;
};

}  // namespace seer::eval
