#pragma once
// Tokenised text: every document of a file tokenised once, kept as a safetensors file that training
// maps into memory.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "seer/io/text.h"
#include "seer/io/tokenizer/tokenizer.h"

namespace seer::train {

// Tensors of the file: tokens [num_tokens] U16 (vocabularies up to 65,536) or U32, offsets
// [num_documents + 1] I64. Tokens are the text's alone: no BOS, no EOS. Metadata: form, hash, source,
// a checksum of the whole file, and "skipped", {"count", "first": [[line, byte, reason]]} as JSON,
// where documents were.
class TokenFile {
 public:
  // Error: not such a file, other bytes than were written, offsets that do not fit.
  explicit TokenFile(const std::filesystem::path& path);
  // One document that is in memory; `source` names it in errors.
  TokenFile(std::vector<int32_t> document, std::string source);
  TokenFile(const TokenFile&) = delete;
  TokenFile& operator=(const TokenFile&) = delete;
  int64_t num_tokens() const { return offsets_.back(); }
  int64_t num_documents() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  std::span<const int64_t> offsets() const { return offsets_; }
  void copy(int64_t begin, int64_t count, int32_t* out) const;
  // Of the tokens and offsets: equal for equal data.
  const std::string& hash() const { return hash_; }
  const std::string& source() const { return source_; }  // name of the text file
  const io::SkippedDocuments& skipped() const { return skipped_; }

 private:
  std::shared_ptr<const void> memory_;  // what the pointers below point into
  std::span<const int64_t> offsets_;
  const uint16_t* narrow_ = nullptr;  // one of the two
  const uint32_t* wide_ = nullptr;
  std::string hash_, source_;
  io::SkippedDocuments skipped_;
};

// Files of a tokenizer's folder by which a text has its tokens.
inline constexpr const char* kTokenizerFiles[] = {"tokenizer.json", "tokenizer_config.json",
                                                  "special_tokens_map.json", "added_tokens.json"};

// The token file of `text` in the folder `cache`, made where there is none, or a damaged one, for these
// bytes under this name and for the tokenizer's files: where the text lies and when it was written
// makes no difference. Tokenises with `threads` threads (0: all cores), keeps the order. Documents
// that cannot be used, also those without a token, are skipped; error: more than half of them, what
// io::TextReader cannot read on from, a text that is written meanwhile.
std::shared_ptr<const TokenFile> open_tokens(const std::filesystem::path& text,
                                             const io::Tokenizer& tokenizer,
                                             const std::filesystem::path& tokenizer_folder,
                                             const std::filesystem::path& cache, int threads,
                                             bool show_progress = true);

}  // namespace seer::train
