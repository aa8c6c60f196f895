#pragma once
// For tests: generated text with something to learn in it, and the repository's own tokenizer.

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "seer/base/random.h"
#include "seer/io/tokenizer/tokenizer.h"

namespace seer::train {

inline std::filesystem::path reference_tokenizer() {
  return std::filesystem::path(SEER_SOURCE_DIR) / "assets" / "reference";
}

// Sentences of a small language: each word has few successors.
inline std::string generated_text(int64_t sentences, uint64_t seed) {
  static const std::vector<std::string> kWords = {
      "the", "river", "stone", "carries", "light", "over", "small",  "houses", "and",  "old",
      "men", "watch", "birds", "that",    "sing",  "of",   "winter", "roads",  "near", "hills"};
  Random random(seed);
  std::string text;
  size_t word = 0;
  for (int64_t i = 0; i < sentences; ++i) {
    for (int j = 0; j < 8; ++j) {
      word = (word * 7 + 3 * random.below(3) + 1) % kWords.size();
      text += (j == 0 ? "" : " ") + kWords[word];
    }
    text += ".\n";
  }
  return text;
}

// A .jsonl file of `documents` generated texts.
inline void write_documents(const std::filesystem::path& path, int64_t documents, int64_t sentences,
                            uint64_t seed) {
  std::ofstream file(path);
  for (int64_t i = 0; i < documents; ++i) {
    file << nlohmann::json{{"text", generated_text(sentences, seed + static_cast<uint64_t>(i))}}
         << "\n";
  }
}

}  // namespace seer::train
