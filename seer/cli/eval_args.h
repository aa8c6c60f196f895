#pragma once
// What the verbs of `eval` share: a model, methods to compare, and the texts to compare them on.

#include <cstdint>
#include <string>
#include <vector>

#include "seer/cli/settings.h"
#include "seer/eval/windows.h"

namespace seer::cli {

struct EvalArgs {
  ModelArgs model;
  SelectArgs select;
  std::string json;
  std::vector<std::string> data, methods;
  int64_t documents = 8;
  double min_ratio = 4;
  uint64_t seed = 1;

  // `known`: the names that `methods` may hold; `about` says more about them in --help.
  void add(Args& args, const std::vector<std::string>& known, const std::string& about,
           std::vector<double> default_sparsity);
  bool wants(const std::string& method) const;
  // Windows of each length from the texts, whose tokens a model with this vocabulary takes.
  std::vector<eval::Windows> windows(const io::Tokenizer& tokenizer,
                                     const std::vector<int64_t>& lengths, int64_t vocab_size) const;
};

}  // namespace seer::cli
