#pragma once
// What the verbs of `eval` share: a model, methods to compare, and the texts to compare them on.

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "seer/cli/methods.h"
#include "seer/cli/settings.h"
#include "seer/eval/perplexity.h"
#include "seer/eval/windows.h"

namespace seer::cli {

// The folders' own names, with as many of their parents' as tell them apart. UsageError: --`flag` names
// one twice.
std::vector<std::string> names_of(const std::string& flag, const std::vector<std::string>& folders);

struct EvalArgs {
  ModelArgs model;
  SelectArgs select;
  std::string json;
  std::vector<std::string> data, methods;
  int64_t documents = 8;  // 0: all
  double min_ratio = 4;
  bool further_windows = false;  // of few documents several windows each (eval::WindowCutter)
  uint64_t seed = 1;
  int block = 0;  // 0: that of the gates, 64 where there are none

  // The model, texts, seed and JSON: all but methods.
  void add_texts(Args& args);
  // `known`: the names that `methods` may hold; `about` says more about them in --help.
  void add(Args& args, const std::vector<std::string>& known, const std::string& about,
           std::vector<double> default_sparsity);
  // The block size of methods that look at no gates. UsageError: --block says another one than gates
  // have that are needed.
  int block_of(const GatesFound& gates) const;
  // Windows of each length from the texts, whose tokens a model with this vocabulary takes; a line on
  // standard error where there are fewer than asked for. Error: a length without any.
  std::vector<eval::Windows> windows(const char* verb, const io::Tokenizer& tokenizer,
                                     const std::vector<int64_t>& lengths, int64_t vocab_size) const;
  // Where tables go: with JSON on standard output, to the terminal's other stream.
  std::FILE* table_out() const { return json == "-" ? stderr : stdout; }
};

// A model and its methods, everything about them settled but the weights.
struct Settled {
  ModelArgs args;
  io::ModelConfig config;
  Needs needs;
  GatesFound gates{};
  int block = 0;
  eval::Subject subject{};
  std::vector<eval::Method> methods{};
};
// The model in `folder` with the gates in `gates` (empty: its own) and the methods of these names.
Settled settle(const EvalArgs& a, const std::string& folder, const std::string& gates,
               const std::vector<std::string>& names);

struct Loaded {
  models::Decoder model;
  std::unique_ptr<models::Gates> gates;  // null: no method needs them
};
std::unique_ptr<Loaded> load(const Settled& one);

}  // namespace seer::cli
