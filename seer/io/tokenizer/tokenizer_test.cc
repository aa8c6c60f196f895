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
  EXPECT_FALSE(tokenizer.has_chat_template());
  EXPECT_THAT(error_of(small(), {{"eos_token", "<none>"}}), HasSubstr("<none>"));
  EXPECT_THAT(error_of(small(), {{"eos_token", 5}}), HasSubstr("eos_token"));
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
        Change{R"({"added_tokens": [{"id": 9, "content": "<s>"}]})", "want 6"},
        Change{R"({"added_tokens": [{"id": 3, "content": "a"}]})", "want 0"},
        Change{R"({"added_tokens": [{"id": 6, "content": ""}]})", "not empty"},
        Change{R"({"added_tokens": [{"id": 6, "content": "x"}, {"id": 7, "content": "x"}]})",
               "once"}));

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
