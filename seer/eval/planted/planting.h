#pragma once
// Windows of text with questions planted into them, whose answers stand earlier in the same window. Made
// from (seed, window) alone: the same seed gives the same tokens, whatever is measured on them.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seer/eval/windows.h"
#include "seer/io/tokenizer/tokenizer.h"

namespace seer::eval {

struct Question {
  int kind = 0, point = 0;      // of Planted::kinds and points
  std::vector<int64_t> answer;  // positions of the tokens that are scored, ascending
  std::vector<int64_t> told;    // of the same tokens where they stand first
};

struct PlantedWindow {
  size_t text;  // index of the window of text that it is made of
  std::vector<int32_t> ids;
  std::vector<Question> questions;
};

// What questions are told apart by: its name in tables, its fields in results.
struct Label {
  std::string name;
  nlohmann::json fields;
};

struct Planted {
  int64_t length = 0;
  std::vector<Label> points;  // distances, or depths
  std::vector<Label> kinds;   // wordings with their number of facts, or sizes of passages
  std::vector<PlantedWindow> windows;
};

// Distances from an answer back to where it is told, in tokens: each question's is drawn from one of the
// ranges between two neighbours. Empty: an eighth, a quarter, half and three quarters of the length.
using Distances = std::vector<int64_t>;

// Tokens between two questions: none shares a block of queries with another.
constexpr int64_t kApart = 128;

struct FactsSettings {
  std::vector<std::string> wordings{"code"};
  std::vector<int64_t> facts{1};  // that a question asks for, one after another
  Distances distances;
  int64_t questions =
      0;  // of a window; 0: one for 512 tokens and 128 more for each further fact, as far as there are names
  uint64_t seed = 1;
};
// Facts at random places and their questions. All distances, wordings and numbers of facts come equally
// often. Error: they do not fit into windows of that length.
Planted plant_facts(const Windows& windows, const io::Tokenizer& tokenizer, int64_t vocab_size,
                    const FactsSettings& settings);

struct CopiesSettings {
  std::vector<int64_t> passages{192};  // tokens
  Distances distances;
  int64_t questions =
      0;  // of a window; 0: one for six times the longest passage, 512 tokens at least
  uint64_t seed = 1;
};
// Passages of the text pasted over a later part of it; what is asked for is every token of the copy but
// the first, which nothing announces.
Planted plant_copies(const Windows& windows, const CopiesSettings& settings);

struct NeedlesSettings {
  std::vector<std::string> wordings{"code"};
  std::vector<double> depths;  // per cent of what is before the questions
  uint64_t seed = 1;
};
// A fact at each depth, asked for at the end of the window, the deepest first. A quarter of a window is
// for questions at most: where there are more depths, further windows are made of the same text.
Planted plant_needles(const Windows& windows, const io::Tokenizer& tokenizer, int64_t vocab_size,
                      const NeedlesSettings& settings);

}  // namespace seer::eval
