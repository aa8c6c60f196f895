// A small hand-made vocabulary whose ids can be told by eye, and tokenizer.json files that are wrong.
#include "seer/io/tokenizer/tokenizer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <thread>

#include <nlohmann/json.hpp>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/random.h"
#include "seer/base/utf8.h"
#include "seer/io/text.h"

namespace seer::io {
namespace {

using nlohmann::json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Ids = std::vector<int32_t>;

class TokenizerTest : public ::testing::Test {
 protected:
  TokenizerTest()
      : folder_(std::filesystem::path(::testing::TempDir()) /
                ("seer_tokenizer_" + std::to_string(::getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~TokenizerTest() override { std::filesystem::remove_all(folder_); }

  Tokenizer load(const json& tokenizer, const json& config = json::object()) {
    write_file_atomic(folder_ / "tokenizer.json", tokenizer.dump());
    write_file_atomic(folder_ / "tokenizer_config.json", config.dump());
    return Tokenizer::load(folder_);
  }

  std::string error_of(const json& tokenizer, const json& config = json::object()) {
    try {
      load(tokenizer, config);
    } catch (const Error& error) {
      const std::string text = error.what();
      EXPECT_EQ(text.find('\n'), std::string::npos) << text;
      return text;
    }
    return "no error";
  }

  std::filesystem::path folder_;
};

// Words of a, b, c and space; merges ab, abc; byte level.
json small() {
  return json::parse(R"({
    "added_tokens": [
      {"id": 6, "content": "<s>", "special": true, "normalized": false},
      {"id": 7, "content": "<x>", "special": false, "normalized": false}],
    "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true},
    "post_processor": {"type": "TemplateProcessing",
      "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
      "special_tokens": {"<s>": {"id": "<s>", "ids": [6], "tokens": ["<s>"]}}},
    "decoder": {"type": "ByteLevel"},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "c": 2, "Ġ": 3, "ab": 4, "abc": 5},
      "merges": ["a b", "ab c"]}})");
}

// SentencePiece style: ▁, a, b, ▁a, and the bytes of U+20AC.
json pieces() {
  return json::parse(R"({
    "normalizer": {"type": "Sequence", "normalizers": [
      {"type": "Prepend", "prepend": "▁"},
      {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}]},
    "decoder": {"type": "Sequence", "decoders": [
      {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
      {"type": "ByteFallback"}, {"type": "Fuse"},
      {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
    "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true,
      "vocab": {"<unk>": 0, "▁": 1, "a": 2, "b": 3, "▁a": 4, "<0xE2>": 5, "<0x82>": 6, "<0xAC>": 7},
      "merges": [["▁", "a"]]}})");
}

TEST_F(TokenizerTest, ByteLevelWords) {
  const Tokenizer tokenizer = load(small());
  EXPECT_THAT(tokenizer.encode("abc ab cab", false), ElementsAre(5, 3, 4, 3, 2, 4));
  EXPECT_THAT(tokenizer.encode("abc", true), ElementsAre(6, 5));
  EXPECT_THAT(tokenizer.encode("", true), ElementsAre(6));
  EXPECT_THAT(tokenizer.encode("a<x><s>b", false), ElementsAre(0, 7, 6, 1));
  EXPECT_EQ(tokenizer.decode({6, 5, 3, 4, 7}, true), "abc ab<x>");
  EXPECT_EQ(tokenizer.decode({6, 5, 99, -1}, false), "<s>abc");
  EXPECT_EQ(tokenizer.vocab_size(), 8);
  EXPECT_EQ(tokenizer.token_id("<x>"), 7);
  EXPECT_EQ(tokenizer.token_id("zz"), std::nullopt);
}

TEST_F(TokenizerTest, PiecesAndBytes) {
  const Tokenizer tokenizer = load(pieces());
  EXPECT_THAT(tokenizer.encode("a ab\xE2\x82\xAC", false), ElementsAre(4, 4, 3, 5, 6, 7));
  EXPECT_THAT(tokenizer.encode("zz", false), ElementsAre(1, 0));
  EXPECT_EQ(tokenizer.decode({4, 4, 3, 5, 6, 7}, false), "a ab\xE2\x82\xAC");
}

TEST_F(TokenizerTest, BrokenTextIsReplaced) {
  json tokenizer = pieces();
  auto& vocab = tokenizer["model"]["vocab"];
  vocab["\xEF\xBF\xBD"] = 8;
  EXPECT_THAT(load(tokenizer).encode("\xF0\x9F\x98\xFF", false), ElementsAre(1, 8, 8));
}

TEST_F(TokenizerTest, StreamGivesWholeCharacters) {
  const Tokenizer tokenizer = load(pieces());
  StreamDecoder stream(tokenizer, true);
  EXPECT_EQ(stream.push(4), "a");
  EXPECT_EQ(stream.push(5), "");
  EXPECT_EQ(stream.push(6), "");
  EXPECT_EQ(stream.push(7), "\xE2\x82\xAC");
  EXPECT_EQ(stream.push(4), " a");
  EXPECT_EQ(stream.push(5), "");
  EXPECT_EQ(stream.finish(), "\xEF\xBF\xBD");
  EXPECT_EQ(stream.push(4), "a") << "a new text drops the space of its first word";
}

TEST_F(TokenizerTest, StreamKeepsAGoodCharacterBeforeBrokenBytes) {
  const Tokenizer tokenizer = load(pieces());
  StreamDecoder stream(tokenizer, true);
  std::string text;
  for (const int32_t id : {5, 6, 7, 6, 5, 3}) text += stream.push(id);
  const std::string mark = "\xEF\xBF\xBD";
  EXPECT_EQ(text + stream.finish(), "\xE2\x82\xAC" + mark + mark + "b");
  EXPECT_EQ(tokenizer.decode({5, 6, 7, 6, 5, 3}, true), mark + mark + mark + mark + mark + "b");
}

TEST_F(TokenizerTest, SpecialTokensOfTheConfig) {
  const Tokenizer tokenizer =
      load(small(), {{"bos_token", {{"content", "<s>"}}}, {"eos_token", nullptr}});
  EXPECT_EQ(tokenizer.bos_id(), 6);
  EXPECT_EQ(tokenizer.eos_id(), std::nullopt);
  EXPECT_FALSE(tokenizer.chat_template());
  EXPECT_EQ(load(small(), {{"eos_token", "<none>"}}).eos_id(), 8) << "the next id, as transformers";
  EXPECT_THAT(error_of(small(), {{"eos_token", 5}}), HasSubstr("eos_token"));
}

// The layout of o200k vocabularies, as in Phi-4-mini: special tokens behind holes, more behind those.
TEST_F(TokenizerTest, IdsOfAddedTokensAreThoseOfTheFile) {
  json tokenizer = small();
  tokenizer["model"]["vocab"]["<end>"] = 9;
  const auto token = [](int id, const char* content) {
    return json{{"id", id}, {"content", content}, {"special", true}};
  };
  tokenizer["added_tokens"] = {token(9, "<end>"), token(12, "<user>"), token(10, "<s>")};
  const Tokenizer made = load(tokenizer, {{"pad_token", "<new>"}});
  EXPECT_THAT(made.encode("<user>a<end><s><new>", false), ElementsAre(12, 0, 9, 10, 13));
  EXPECT_EQ(made.decode({12, 11, 7, 0, 10}, false), "<user>a<s>");
  EXPECT_EQ(made.vocab_size(), 14);
}

TEST_F(TokenizerTest, ManyTokensThatNoFileNumbers) {  // minutes, were their number squared
  json list = {"<7>"};
  for (int i = 0; i < 50'000; ++i) list.push_back("<" + std::to_string(i) + ">");
  const Tokenizer made = load(small(), {{"additional_special_tokens", list}});
  EXPECT_EQ(made.token_id("<7>"), 8);
  EXPECT_EQ(made.vocab_size(), 8 + 50'000);
}

TEST_F(TokenizerTest, FilesBesideThatContradict) {
  const auto decoder = [](const char* id, const char* content) {
    return json{{"added_tokens_decoder", {{id, {{"content", content}}}}}};
  };
  EXPECT_EQ(load(small(), decoder("11", "<new>")).token_id("<new>"), 11);
  EXPECT_EQ(load(small(), decoder("11", "<s>")).token_id("<s>"), 6);
  EXPECT_THAT(error_of(small(), decoder("0", "<new>")), HasSubstr("has it"));
  EXPECT_THAT(error_of(small(), decoder("x1", "<new>")), HasSubstr("\"x1\""));
  EXPECT_THAT(error_of(small(), decoder("-1", "<new>")), HasSubstr("\"-1\""));
  EXPECT_THAT(error_of(small(), {{"added_tokens_decoder", json::array()}}), HasSubstr("an object"));
}

TEST_F(TokenizerTest, LongChainsAreRefused) {
  const json strip = {{"type", "Strip"}, {"content", "a"}, {"start", 1}, {"stop", 1}};
  const json split = {{"type", "Digits"}, {"individual_digits", false}};
  const std::tuple<const char*, const char*, json> chains[] = {
      {"decoder", "decoders", strip},
      {"normalizer", "normalizers", {{"type", "NFC"}}},
      {"pre_tokenizer", "pretokenizers", split},
      {"post_processor", "processors", {{"type", "ByteLevel"}}}};
  for (const auto& [field, list, step] : chains) {
    SCOPED_TRACE(field);
    json tokenizer = small(), nested = step;
    tokenizer[field] = {{"type", "Sequence"}, {list, std::vector<json>(16'000, step)}};
    EXPECT_THAT(error_of(tokenizer), AllOf(HasSubstr(field), HasSubstr("step 65")));
    for (int i = 0; i < 70; ++i) nested = {{"type", "Sequence"}, {list, {nested}}};
    tokenizer[field] = nested;
    EXPECT_THAT(error_of(tokenizer), AllOf(HasSubstr(field), HasSubstr("step 65")));
  }
  json tokenizer = small();
  const json bytes = tokenizer["pre_tokenizer"];
  tokenizer["pre_tokenizer"] = {{"type", "Sequence"},
                                {"pretokenizers", std::vector<json>(40, bytes)}};
  EXPECT_THAT(error_of(tokenizer), HasSubstr("ByteLevel"));
}

TEST_F(TokenizerTest, TextsThatGrowWithoutEndAreRefused) {
  const json twice = {{"type", "Replace"}, {"pattern", {{"Regex", "."}}}, {"content", "bb"}};
  const std::vector<json> chain(60, twice);
  const auto says = ::testing::ThrowsMessage<Error>(HasSubstr("times as much text"));
  json tokenizer = small();
  tokenizer["normalizer"] = {{"type", "Sequence"}, {"normalizers", chain}};
  EXPECT_THAT([&] { load(tokenizer).encode("abc", false); }, says);
  for (const bool fused : {false, true}) {
    tokenizer = small();
    auto steps = chain;
    if (fused) steps.insert(steps.begin(), json{{"type", "Fuse"}});
    tokenizer["decoder"] = {{"type", "Sequence"}, {"decoders", steps}};
    const Tokenizer made = load(tokenizer);
    EXPECT_THAT([&] { made.decode({0, 1, 2}, false); }, says);
    StreamDecoder stream(made, false);
    EXPECT_THAT([&] { stream.push(0); }, says);
  }
  tokenizer = small();
  tokenizer["added_tokens"].push_back({{"id", 8}, {"content", std::string(2000, 'x')}});
  EXPECT_THAT(error_of(tokenizer), HasSubstr("1024 bytes"));
}

// Text of a decoder's steps, given token by token.
class FusedStream : public TokenizerTest {
 protected:
  std::vector<std::string> pieces_of(const std::vector<json>& steps, const Ids& ids) {
    json tokenizer = pieces();
    tokenizer["decoder"] = {{"type", "Sequence"}, {"decoders", steps}};
    const Tokenizer made = load(tokenizer);
    StreamDecoder stream(made, false);
    std::vector<std::string> out;
    std::string all;
    for (const int32_t id : ids) all += out.emplace_back(stream.push(id));
    all += out.emplace_back(stream.finish());
    EXPECT_EQ(all, made.decode(ids, false));
    return out;
  }
  static json replace(const char* kind, const char* pattern, const char* content) {
    return {{"type", "Replace"}, {"pattern", {{kind, pattern}}}, {"content", content}};
  }
  const json fuse_ = {{"type", "Fuse"}};
};

TEST_F(FusedStream, GivesWhatIsSettled) {
  const Ids ids = {4, 3, 2, 2, 3, 1, 3};  // ▁a b a a b ▁ b
  EXPECT_THAT(pieces_of({fuse_, replace("String", "▁", " ")}, ids),
              ElementsAre(" a", "b", "a", "a", "b", " ", "b", ""));
  EXPECT_THAT(pieces_of({fuse_, replace("String", "aab", "<>"), replace("String", "▁", " ")}, ids),
              ElementsAre(" ", "ab", "", "", "<>", " ", "b", ""));
  EXPECT_THAT(pieces_of({fuse_, replace("Regex", "a+", "x")}, ids),
              ElementsAre("▁", "xb", "", "", "xb", "▁", "b", ""));
  EXPECT_THAT(pieces_of({fuse_, replace("Regex", "(?<=b)a|b$", "x")}, ids),
              ElementsAre("▁a", "", "bx", "a", "", "b▁", "", "x"));
  const json strip = {{"type", "Strip"}, {"content", "b"}, {"start", 0}, {"stop", 2}};
  EXPECT_THAT(pieces_of({fuse_, strip}, {2, 3, 3, 3, 2, 3}),
              ElementsAre("a", "", "", "b", "bba", "", ""));
  EXPECT_THAT(pieces_of({fuse_, replace("String", "▁", " "), {{"type", "ByteLevel"}}}, ids),
              ElementsAre(" a", "b", "a", "a", "b", " ", "b", ""));
}

TEST_F(TokenizerTest, ManyThreadsAgree) {
  const Tokenizer tokenizer = load(small());
  const auto text_of = [](uint64_t seed) {
    Random random(seed);
    std::string text;
    for (int i = 0; i < 2000; ++i) text += "abc "[random.below(4)];
    return text;
  };
  std::vector<Ids> want;
  for (uint64_t i = 0; i < 8; ++i) want.push_back(load(small()).encode(text_of(i), false));
  std::vector<std::thread> threads;
  std::vector<int> agree(8);
  for (uint64_t i = 0; i < 8; ++i) {
    threads.emplace_back([&, i] {
      for (int repeat = 0; repeat < 20; ++repeat) {
        agree[i] += tokenizer.encode(text_of(i), false) == want[i];
      }
    });
  }
  for (auto& thread : threads) thread.join();
  EXPECT_THAT(agree, ::testing::Each(20));
}

TEST_F(TokenizerTest, FilesThatAreNotThereOrNotJson) {
  EXPECT_THROW(Tokenizer::load(folder_ / "nothing"), Error);
  write_file_atomic(folder_ / "tokenizer.json", "{\"model\": ");
  EXPECT_THROW(Tokenizer::load(folder_), Error);
}

TEST_F(TokenizerTest, DeepNesting) {
  std::string text;
  for (int i = 0; i < 100'000; ++i) text += "{\"type\":\"Sequence\",\"normalizers\":[";
  for (int i = 0; i < 100'000; ++i) text += "]}";
  std::ofstream(folder_ / "tokenizer.json") << "{\"normalizer\":" << text << "}";
  EXPECT_THAT([&] { Tokenizer::load(folder_); },
              ::testing::ThrowsMessage<Error>(HasSubstr("nested deeper")));
}

struct Change {
  const char* patch;  // JSON merge patch of small()
  const char* says;
  friend void PrintTo(const Change& c, std::ostream* out) { *out << c.says; }
};

class WrongFile : public TokenizerTest, public ::testing::WithParamInterface<Change> {};

TEST_P(WrongFile, IsNamed) {
  json tokenizer = small();
  tokenizer.merge_patch(json::parse(GetParam().patch));
  EXPECT_THAT(error_of(tokenizer), AllOf(HasSubstr("tokenizer.json"), HasSubstr(GetParam().says)));
}

INSTANTIATE_TEST_SUITE_P(
    All, WrongFile,
    ::testing::Values(
        Change{R"({"model": null})", "model"}, Change{R"({"model": []})", "object"},
        Change{R"({"model": {"type": "Unigram"}})", "Unigram"},
        Change{R"({"model": {"vocab": ["a"]}})", "vocab"},
        Change{R"({"model": {"vocab": {"a": -1}}})", "-1"},
        Change{R"({"model": {"vocab": {"a": 1.5}}})", "whole number"},
        Change{R"({"model": {"vocab": {"a": 18446744073709551615}}})", "whole number"},
        Change{R"({"model": {"vocab": {"a": 4000000000}}})", "whole number"},
        Change{R"({"model": {"vocab": {"a": 1}}})", "both"},
        Change{R"({"model": {"merges": ["a z"]}})", "\"z\""},
        Change{R"({"model": {"merges": ["b a"]}})", "\"ba\""},
        Change{R"({"model": {"merges": ["ab"]}})", "two tokens"},
        Change{R"({"model": {"merges": ["a b c"]}})", "two tokens"},
        Change{R"({"model": {"merges": [["a"]]}})", "two tokens"},
        Change{R"({"model": {"merges": [["a", 1]]}})", "string"},
        Change{R"({"model": {"merges": 1}})", "array"},
        Change{R"({"model": {"dropout": 0.1}})", "dropout"},
        Change{R"({"model": {"end_of_word_suffix": "</w>"}})", "end_of_word_suffix"},
        Change{R"({"normalizer": {"type": "BertNormalizer"}})", "BertNormalizer"},
        Change{R"({"normalizer": {"type": "Replace", "pattern": {"String": ""}, "content": ""}})",
               "empty"},
        Change{R"({"pre_tokenizer": {"type": "Whitespace"}})", "Whitespace"},
        Change{
            R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"}})",
            "\"(\""},
        Change{
            R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "a\\bz"}, "behavior": "Isolated"}})",
            "\\b"},
        Change{
            R"({"pre_tokenizer": {"type": "Split", "pattern": {"Regex": "[a-z&&[^b]]"}, "behavior": "Isolated"}})",
            "class"},
        Change{
            R"({"pre_tokenizer": {"type": "Split", "pattern": {"String": "a"}, "behavior": "None"}})",
            "None"},
        Change{R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "ab"}})", "one character"},
        Change{
            R"({"pre_tokenizer": {"type": "Metaspace", "replacement": "_", "prepend_scheme": "x"}})",
            "prepend_scheme"},
        Change{R"({"post_processor": {"type": "BertProcessing"}})", "BertProcessing"},
        Change{R"({"post_processor": {"single": []}})", "single"},
        Change{R"({"post_processor": {"special_tokens": null}})", "special_tokens"},
        Change{R"({"decoder": {"type": "WordPiece"}})", "WordPiece"},
        Change{R"({"decoder": {"type": "Strip", "content": "", "start": 1, "stop": 0}})",
               "content"},
        Change{R"({"added_tokens": [{"id": 3, "content": "<s>"}]})", "has it"},
        Change{R"({"added_tokens": [{"id": 6, "content": "x"}, {"id": 6, "content": "y"}]})",
               "has it"},
        Change{R"({"added_tokens": [{"id": 3, "content": "a"}]})", "want 0"},
        Change{R"({"added_tokens": [{"id": 6, "content": ""}]})", "not empty"},
        Change{R"({"added_tokens": [{"id": 6, "content": "x"}, {"id": 7, "content": "x"}]})",
               "before"}));

TEST_F(TokenizerTest, DamagedFilesNeverCrash) {
  const std::string whole = small().dump(), other = pieces().dump();
  Random random(3);
  int errors = 0;
  for (int i = 0; i < 3000; ++i) {
    std::string text = i % 2 ? whole : other;
    for (uint64_t k = 0; k <= random.below(3); ++k) {
      const size_t at = random.below(text.size());
      switch (random.below(3)) {
        case 0: text[at] = static_cast<char>(random.below(256)); break;
        case 1: text.erase(at, random.below(30)); break;
        default: text.insert(at, text.substr(random.below(text.size()), random.below(20)));
      }
    }
    std::ofstream(folder_ / "tokenizer.json", std::ios::binary) << text;  // 3000 syncs take long
    try {
      const Tokenizer tokenizer = Tokenizer::load(folder_);
      const Ids ids = tokenizer.encode("abc <s> \xE2\x82\xAC zz \xFF", true);
      EXPECT_EQ(find_invalid_utf8(tokenizer.decode(ids, false)), std::string::npos);
    } catch (const Error& error) {
      ++errors;
      EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    }
  }
  EXPECT_GT(errors, 1000);
}

}  // namespace
}  // namespace seer::io
