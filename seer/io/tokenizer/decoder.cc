#include "seer/io/tokenizer/decoder.h"

#include "seer/base/limits.h"
#include "seer/io/tokenizer/decode_steps.h"

namespace seer::io {

namespace {

constexpr const char* kDecoders =
    "Sequence, ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip";

}  // namespace

Decoder::Decoder(const std::optional<JsonNode>& field, bool is_byte_level) {
  if (field) {
    StepCount count;
    read(*field, is_byte_level, count);
  } else {
    makers_.push_back([](const How& how) { return std::make_unique<SpacedDecode>(how.next); });
  }
}

void Decoder::read(const JsonNode& field, bool is_byte_level, StepCount& count) {
  count.add(field);
  const std::string& type = field.at("type").string();
  if (type == "Sequence") {
    const JsonNode list = field.at("decoders");
    for (size_t i = 0; i < list.array_size(); ++i) read(list.at(i), is_byte_level, count);
  } else if (type == "ByteLevel") {
    makers_.push_back([is_byte_level](const How& how) {
      return std::make_unique<ByteLevelDecode>(how.next, how.early, is_byte_level);
    });
  } else if (type == "ByteFallback") {
    makers_.push_back(
        [](const How& how) { return std::make_unique<ByteFallbackDecode>(how.next, how.early); });
  } else if (type == "Fuse") {
    makers_.push_back([](const How& how) { return std::make_unique<FuseDecode>(how.next); });
  } else if (type == "Metaspace") {
    makers_.push_back([settings = read_metaspace(field)](const How& how) {
      return std::make_unique<MetaspaceDecode>(how.next, settings);
    });
  } else if (type == "Replace") {
    makers_.push_back([replacement = Replacement(field)](const How& how) {
      return std::make_unique<ReplaceDecode>(how.next, replacement, how.budget);
    });
  } else if (type == "Strip") {
    const std::string content = read_character(field.at("content"));
    const int64_t start = field.at("start").integer(0, limits::kStripped);
    const int64_t stop = field.at("stop").integer(0, limits::kStripped);
    makers_.push_back([content, start](const How& how) {
      return std::make_unique<StripFrontDecode>(how.next, content, start);
    });
    if (stop == 0) return;
    makers_.push_back([content, stop](const How& how) {
      return std::make_unique<StripBackDecode>(how.next, content, stop);
    });
  } else {
    field.unsupported("decoder", type, kDecoders);
  }
}

Decoder::Run::Run(const Decoder& decoder, bool early) : shared_(std::make_unique<Shared>()) {
  steps_.push_back(std::make_unique<CollectDecode>(&shared_->text));
  for (auto maker = decoder.makers_.rbegin(); maker != decoder.makers_.rend(); ++maker) {
    steps_.push_back((*maker)({steps_.back().get(), early, shared_->budget}));
  }
}

void Decoder::Run::push(std::string_view token) {
  shared_->budget.add(token.size());
  steps_.back()->push({token});
}

void Decoder::Run::finish() {
  steps_.back()->finish();
}

std::string Decoder::Run::take() {
  return std::exchange(shared_->text, {});
}

}  // namespace seer::io
