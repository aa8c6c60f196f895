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

namespace seer::io {

class Tokenizer {
 public:
  // From a folder with tokenizer.json and, where they are there, tokenizer_config.json and
  // chat_template.jinja. Truncation and padding in tokenizer.json are not applied. Error: missing file,
  // not JSON, a model, normalizer or pre-tokenizer that is not supported (named, with the list).
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

  int64_t vocab_size() const;  // added tokens included
  std::optional<int32_t> token_id(std::string_view token) const;
  std::optional<int32_t> bos_id() const;  // of tokenizer_config.json
  std::optional<int32_t> eos_id() const;

  bool has_chat_template() const;
  struct Message {
    std::string role, content;
  };
  // The prompt of a conversation by the folder's chat template, to be encoded without specials. Error:
  // no template, a construct in it that is not supported (named), or one that it raises itself.
  std::string apply_chat_template(const std::vector<Message>& messages,
                                  bool add_generation_prompt) const;

 private:
  friend class StreamDecoder;
  struct State;
  explicit Tokenizer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

// Text that comes id by id: gives back what is complete, keeps the bytes of a character that is not.
// All pieces joined are decode() of all ids, but for one case: of byte tokens (<0xE2>) that form a
// character and then broken bytes, the character stays here, where decode() replaces the whole run.
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
