#include "seer/io/tokenizer/decoder.h"

#include "seer/io/tokenizer/decode_steps.h"
#include "seer/io/tokenizer/pattern.h"

namespace seer::io {

namespace {

constexpr const char* kDecoders =
    "Sequence, ByteLevel, ByteFallback, Fuse, Metaspace, Replace, Strip";
constexpr int64_t kMostStripped = 1 << 20;

}  // namespace

Decoder::Decoder(const std::optional<JsonNode>& field) {
  if (field) {
    read(*field);
  } else {
    makers_.push_back([](DecodeStep* next, bool) { return std::make_unique<SpacedDecode>(next); });
  }
}

void Decoder::read(const JsonNode& field) {
  const std::string& type = field.at("type").string();
  if (type == "Sequence") {
    const JsonNode list = field.at("decoders");
    for (size_t i = 0; i < list.array_size(); ++i) read(list.at(i));
  } else if (type == "ByteLevel") {
    makers_.push_back(
        [](DecodeStep* next, bool) { return std::make_unique<ByteLevelDecode>(next); });
  } else if (type == "ByteFallback") {
    makers_.push_back([](DecodeStep* next, bool early) {
      return std::make_unique<ByteFallbackDecode>(next, early);
    });
  } else if (type == "Fuse") {
    makers_.push_back([](DecodeStep* next, bool) { return std::make_unique<FuseDecode>(next); });
  } else if (type == "Metaspace") {
    makers_.push_back([settings = read_metaspace(field)](DecodeStep* next, bool) {
      return std::make_unique<MetaspaceDecode>(next, settings);
    });
  } else if (type == "Replace") {
    makers_.push_back([pattern = read_pattern(field.at("pattern")),
                       content = field.at("content").string()](DecodeStep* next, bool) {
      return std::make_unique<ReplaceDecode>(next, pattern, content);
    });
  } else if (type == "Strip") {
    const std::string content = field.at("content").string();
    if (content.empty()) field.at("content").expected("one character");
    const int64_t start = field.at("start").integer(0, kMostStripped);
    const int64_t stop = field.at("stop").integer(0, kMostStripped);
    makers_.push_back([content, start](DecodeStep* next, bool) {
      return std::make_unique<StripFrontDecode>(next, content, start);
    });
    if (stop == 0) return;
    makers_.push_back([content, stop](DecodeStep* next, bool) {
      return std::make_unique<StripBackDecode>(next, content, stop);
    });
  } else {
    field.unsupported("decoder", type, kDecoders);
  }
}

Decoder::Run::Run(const Decoder& decoder, bool early) : text_(std::make_unique<std::string>()) {
  steps_.push_back(std::make_unique<CollectDecode>(text_.get()));
  for (auto maker = decoder.makers_.rbegin(); maker != decoder.makers_.rend(); ++maker) {
    steps_.push_back((*maker)(steps_.back().get(), early));
  }
}

void Decoder::Run::push(std::string_view token) {
  steps_.back()->push({token});
}

void Decoder::Run::finish() {
  steps_.back()->finish();
}

std::string Decoder::Run::take() {
  return std::exchange(*text_, {});
}

}  // namespace seer::io
