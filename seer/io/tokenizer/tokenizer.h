#pragma once
// tokenizer.json of a Hugging Face folder: byte-level BPE (Llama 3, Qwen, Phi-4, Mistral Nemo) and
// SentencePiece-style BPE with byte fallback (Mistral, Phi-3). Same ids as the `tokenizers` library.

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "seer/io/chat_template.h"

namespace seer::io {

class Tokenizer {
 public:
  // From a folder with tokenizer.json and, where they are there, the files beside it that name special
  // tokens and the chat template (tokenizer_config.h says which and in which order). Truncation and
  // padding in tokenizer.json are not applied. Error: missing file, not JSON, a model, normalizer or
  // pre-tokenizer that is not supported (named, with the list), a limit of seer/base/limits.h.
  static Tokenizer load(const std::filesystem::path& folder);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Ids of a text; `special` adds what the post-processor adds (BOS ...). Added tokens in the text are
  // recognised. Bytes that are not UTF-8 are read as U+FFFD, one for each maximal subpart. Thread-safe.
  std::vector<int32_t> encode(std::string_view text, bool special) const;
  // Text of ids; `skip_special` leaves special tokens out. Bytes that do not form UTF-8 become U+FFFD.
  // Ids that no token has are left out (models round their vocabulary up).
  std::string decode(const std::vector<int32_t>& ids, bool skip_special) const;

  int64_t vocab_size() const;  // the largest id and 1; not all below need to have a token
  std::optional<int32_t> token_id(std::string_view token) const;
  std::optional<int32_t> bos_id() const;
  // Where no file names an eos_token: the first of generation_config.json or config.json.
  std::optional<int32_t> eos_id() const;

  const std::optional<ChatTemplate>& chat_template() const;

 private:
  friend class StreamDecoder;
  struct State;
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Text that comes id by id: gives back what is complete, keeps what a later token may change: the bytes
// of a character, the beginning of a text that a decoder replaces. All pieces joined are decode() of all
// ids, but for what only the end of a text could tell. Of byte tokens (<0xE2>) that form a character and
// then broken bytes, the character stays here, where decode() replaces the whole run. A decoder that
// fuses tokens before it reads bytes leaves them all alone in decode() where one character stands for no
// byte; here those that came before it are read.
class StreamDecoder {
 public:
  // `tokenizer` must outlive it.
  StreamDecoder(const Tokenizer& tokenizer, bool skip_special);
  ~StreamDecoder();
  StreamDecoder(StreamDecoder&&) noexcept;
  StreamDecoder& operator=(StreamDecoder&&) noexcept;
  std::string push(int32_t id);  // may be empty
  std::string finish();          // what was kept; the next push begins a new text

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace seer::io
