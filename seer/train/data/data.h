#pragma once
// Training data: which files, in which shares, and where their token files are kept.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "seer/base/allowed.h"
#include "seer/io/text.h"
#include "seer/io/tokenizer/tokenizer.h"
#include "seer/train/data/token_file.h"

namespace seer::train {

struct DataSettings {
  std::vector<std::filesystem::path> train;  // as io::TextReader reads
  // Shares of the windows from each text, in proportion to each other; empty: equal.
  std::vector<double> weights;
  std::vector<std::filesystem::path> valid;     // held out
  std::filesystem::path cache = ".cache/seer";  // folder of token files
  // Share of training windows that get synthetic facts and copies, 0 ... 1 (synthetic.h).
  double synthetic_share = 0;
  int threads = 0;  // that tokenise; 0: all cores
  // Tokenising, and a line for each file whose broken documents are skipped; on standard error.
  bool show_progress = true;
};

template <class Visit>
void each_setting(DataSettings& s, const Visit& visit) {
  visit("data", s.train, {},
        message("texts to train on: ", io::kTextFiles, "; broken ones are skipped and reported"));
  visit("weights", s.weights, repeated(above(0, 1e12)),
        "share of the windows from each text; default: equal");
  visit("valid", s.valid, {}, "held-out texts");
  visit("synthetic", s.synthetic_share, range(0, 1),
        "share of windows with inserted facts and copies");
  visit("cache", s.cache, {}, "folder of token files");
}
// UsageError where a value is not allowed.
void check(const DataSettings& settings);

// A file's documents as one stream of tokens, [BOS] text EOS for each, in the order of the file or
// in one drawn for an epoch. BOS where the tokenizer has one; no text is copied until it is asked
// for.
class TokenStream {
 public:
  // Error: no EOS in the tokenizer, to keep documents apart.
  TokenStream(std::shared_ptr<const TokenFile> file, const io::Tokenizer& tokenizer);
  // The same documents in the order drawn for (seed, epoch).
  TokenStream shuffled(uint64_t seed, uint64_t epoch) const;
  int64_t size() const { return begins_.back(); }
  // Copies tokens [begin, begin + count), 0 <= begin < size; behind the end the stream begins
  // again.
  void copy(int64_t begin, int64_t count, int32_t* out) const;
  const TokenFile& file() const { return *file_; }

 private:
  void set_order(std::vector<int64_t> order);
  std::shared_ptr<const TokenFile> file_;
  int32_t bos_, eos_;            // bos_ -1: none
  std::vector<int64_t> order_;   // documents
  std::vector<int64_t> begins_;  // in the stream, of each document in that order, and the end
};

// Streams of files by their weights.
struct Mixture {
  std::vector<TokenStream> streams;
  std::vector<double> weights;
  int32_t bos = -1;
  // What the tokens are: names, lengths, hashes, documents skipped; part of a run's settings.
  nlohmann::json identity() const;
  int64_t skipped_documents() const;
};
// One stream.
Mixture single_mixture(std::shared_ptr<const TokenFile> file, const io::Tokenizer& tokenizer);
// Tokenises what is not in the cache. `weights`: as of DataSettings. Error: no file, a negative weight, no weight above 0; a file
// that open_tokens() refuses; a token outside of the model's vocabulary of `vocab_size`.
Mixture open_mixture(const std::vector<std::filesystem::path>& files,
                     const std::vector<double>& weights, const DataSettings& settings,
                     const io::Tokenizer& tokenizer, const std::filesystem::path& tokenizer_folder,
                     int64_t vocab_size);

// Window `index` of pretraining, `length` tokens: BOS, then a random place of a stream drawn by
// weight. A function of (seed, index) alone. Error: a stream is shorter than the window.
class RandomWindows {
 public:
  RandomWindows(const Mixture& mixture, uint64_t seed) : mixture_(mixture), seed_(seed) {}
  void window(uint64_t index, int64_t length, int32_t* out) const;

 private:
  const Mixture& mixture_;
  uint64_t seed_;
};

// Windows of distillation: each epoch of a stream joins its documents in a drawn order to a ring,
// cuts it from a drawn place on to `length` tokens (a rest is left out) and gives the pieces in a
// drawn order, BOS first. Streams alternate by weight. No token is seen twice in an epoch.
class PackedWindows {
 public:
  PackedWindows(const Mixture& mixture, uint64_t seed, int64_t length);
  void window(uint64_t index, int32_t* out);

 private:
  struct Epoch {
    uint64_t number;
    TokenStream stream;
    int64_t begin;               // of the first window in the stream
    std::vector<int64_t> order;  // of the windows
  };
  // Which stream gives window `index`, and how many windows it gave before.
  std::pair<size_t, uint64_t> source(uint64_t index);
  const Mixture& mixture_;
  uint64_t seed_;
  int64_t length_;
  std::vector<std::unique_ptr<Epoch>> epochs_;  // the last one used of each stream
  std::vector<std::pair<uint8_t, uint64_t>> sources_;
  std::vector<uint64_t> given_;
};

}  // namespace seer::train
