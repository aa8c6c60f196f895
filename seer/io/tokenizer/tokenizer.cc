// From text to ids: added tokens are cut out, the rest is normalized, cut into words and encoded.
#include "seer/io/tokenizer/tokenizer.h"

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/shown.h"
#include "seer/base/utf8.h"
#include "seer/io/text.h"
#include "seer/io/tokenizer/tokenizer_state.h"

namespace seer::io {

namespace {

PreTokenizerPlan pre_tokenizer_of(const JsonNode& root) {
  const auto node = root.find("pre_tokenizer");
  return node ? read_pre_tokenizer(*node) : PreTokenizerPlan{};
}

PostProcessor post_processor_of(const JsonNode& root) {
  const auto node = root.find("post_processor");
  return node ? read_post_processor(*node) : PostProcessor{};
}

}  // namespace

Tokenizer::State::State(const JsonNode& root, TokenizerConfig config_read)
    : config(std::move(config_read)),
      normalizer(root.find("normalizer")),
      pre_tokenizer(pre_tokenizer_of(root)),
      bpe(root.at("model"), pre_tokenizer.is_byte_level),
      added(root.find("added_tokens"), config, bpe.vocabulary(), normalizer),
      post_processor(post_processor_of(root)),
      decoder(root.find("decoder"), pre_tokenizer.is_byte_level) {
  const auto id_of = [&](const char* key) -> std::optional<int32_t> {
    const auto it = config.special.find(key);
    return it == config.special.end() ? std::nullopt : token_id(it->second.content);
  };
  bos = id_of("bos_token");
  eos = id_of("eos_token");
  if (!eos && config.eos_id && token_text(static_cast<int32_t>(*config.eos_id), false)) {
    eos = static_cast<int32_t>(*config.eos_id);
  }
}

std::optional<int32_t> Tokenizer::State::token_id(std::string_view token) const {
  if (const AddedToken* found = added.find(token)) return found->id;
  return bpe.vocabulary().id(token);
}

const std::string* Tokenizer::State::token_text(int32_t id, bool skip_special) const {
  // As in the `tokenizers` library, a special token that its normalization changes is not left out.
  const AddedToken* token = added.find(int64_t{id});
  const std::string* text = token ? &token->text : bpe.vocabulary().token(id);
  return text && skip_special && added.is_special(*text) ? nullptr : text;
}

Tokenizer Tokenizer::load(const std::filesystem::path& folder) {
  const std::string path = (folder / "tokenizer.json").string();
  const nlohmann::json json = read_json(path);
  return Tokenizer(std::make_unique<State>(JsonNode(json, path), TokenizerConfig::read(folder)));
}

Tokenizer::Tokenizer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

std::vector<int32_t> Tokenizer::encode(std::string_view text, bool special) const {
  const State& s = *state_;
  std::string repaired;
  if (find_invalid_utf8(text) != std::string_view::npos) {
    repaired = replace_invalid_utf8(text);
    text = repaired;
  }
  std::vector<int32_t> ids;
  if (special) ids = s.post_processor.before;
  const PreTokenizer::Take take_word = [&](std::string_view word, bool) {
    s.bpe.encode(word, ids);
  };
  const auto encode_part = [&](std::string_view part, bool at_start) {
    s.pre_tokenizer.split ? s.pre_tokenizer.split->split(part, at_start, take_word)
                          : take_word(part, at_start);
  };
  s.added.split(text, false, [&](std::string_view raw, const AddedToken* token) {
    if (token) return ids.push_back(token->id);
    std::string normalized;
    std::string_view part = raw;
    if (!s.normalizer.changes_nothing()) {
      normalized = raw;
      s.normalizer.normalize(normalized);
      part = normalized;
    }
    s.added.split(part, true, [&](std::string_view words, const AddedToken* inner) {
      if (inner) return ids.push_back(inner->id);
      encode_part(words, raw.data() == text.data() && words.data() == part.data());
    });
  });
  if (special) {
    const auto& after = s.post_processor.after;
    ids.insert(ids.end(), after.begin(), after.end());
  }
  return ids;
}

std::string Tokenizer::decode(const std::vector<int32_t>& ids, bool skip_special) const {
  Decoder::Run run(state_->decoder, false);
  for (const int32_t id : ids) {
    if (const std::string* text = state_->token_text(id, skip_special)) run.push(*text);
  }
  run.finish();
  return run.take();
}

int64_t Tokenizer::vocab_size() const {
  return state_->added.num_ids();
}

std::optional<int32_t> Tokenizer::token_id(std::string_view token) const {
  return state_->token_id(token);
}

std::optional<int32_t> Tokenizer::bos_id() const {
  return state_->bos;
}
std::optional<int32_t> Tokenizer::eos_id() const {
  return state_->eos;
}

const std::optional<ChatTemplate>& Tokenizer::chat_template() const {
  return state_->config.chat_template;
}

struct StreamDecoder::State {
  const Tokenizer::State& tokenizer;
  bool skip_special;
  Decoder::Run run;
};

StreamDecoder::StreamDecoder(const Tokenizer& tokenizer, bool skip_special)
    : state_(new State{*tokenizer.state_, skip_special,
                       Decoder::Run(tokenizer.state_->decoder, true)}) {}
StreamDecoder::~StreamDecoder() = default;
StreamDecoder::StreamDecoder(StreamDecoder&&) noexcept = default;
StreamDecoder& StreamDecoder::operator=(StreamDecoder&&) noexcept = default;

std::string StreamDecoder::push(int32_t id) {
  const std::string* text = state_->tokenizer.token_text(id, state_->skip_special);
  if (text) state_->run.push(*text);
  return state_->run.take();
}

std::string StreamDecoder::finish() {
  state_->run.finish();
  std::string rest = state_->run.take();
  state_->run = Decoder::Run(state_->tokenizer.decoder, true);
  return rest;
}

}  // namespace seer::io
