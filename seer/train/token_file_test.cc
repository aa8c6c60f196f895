// Token files of texts with broken documents.
#include "seer/train/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/file_lock.h"
#include "seer/io/safetensors.h"
#include "seer/train/data.h"
#include "seer/train/run_fixture.h"
#include "seer/train/text_fixture.h"

namespace seer::train {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr const char* kBadUtf8 = "{\"text\": \"\xFF\"}\n";
constexpr const char* kNoText = "{\"text\": \"\"}\n";
constexpr const char* kNoField = "{\"body\": \"a\"}\n";

std::string good(const std::string& text) {
  return nlohmann::json{{"text", text}}.dump() + "\n";
}

class TokenFileTest : public RunTest {
 protected:
  std::shared_ptr<const TokenFile> open(const std::string& name, int threads = 2) {
    return open_tokens(folder / name, tokenizer, reference_tokenizer(), folder / "cache", threads,
                       /*show_progress=*/false);
  }
  std::shared_ptr<const TokenFile> tokens_of(const std::string& name, const std::string& content) {
    write_file_atomic(folder / name, content);
    return open(name);
  }
  std::string error_of(const std::string& name, const std::string& content) {
    try {
      tokens_of(name, content);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }
  std::vector<std::filesystem::path> cached() {
    std::vector<std::filesystem::path> paths;
    if (!std::filesystem::exists(folder / "cache")) return paths;
    for (const auto& entry : std::filesystem::directory_iterator(folder / "cache")) {
      paths.push_back(entry.path());
    }
    return paths;
  }
  // What is printed on standard error when `files` are opened for training.
  std::string report_of(const std::vector<DataFile>& files, bool show_progress) {
    DataSettings settings;
    settings.cache = folder / "cache";
    settings.show_progress = show_progress;
    ::testing::internal::CaptureStderr();
    open_mixture(files, settings, tokenizer, reference_tokenizer());
    return ::testing::internal::GetCapturedStderr();
  }

  io::Tokenizer tokenizer = io::Tokenizer::load(reference_tokenizer());
};

TEST_F(TokenFileTest, GoodDocumentsAreWhatTheyAreWithoutTheBrokenOnes) {
  const std::string a = good("one river"), b = good("two stones"), c = good("three hills"),
                    d = good("four");
  const auto clean = tokens_of("clean.jsonl", a + b + c + d);
  const auto file = tokens_of("a.jsonl", kBadUtf8 + a + b + kNoText + c + kNoField + d + "{\n");
  EXPECT_EQ(file->num_documents(), 4);
  EXPECT_EQ(file->hash(), clean->hash());
  EXPECT_EQ(file->skipped().count, 4);
  EXPECT_EQ(clean->skipped().count, 0);
}

TEST_F(TokenFileTest, TheFirstPlacesAreKeptInOrder) {
  const std::string a = good("a");  // 13 bytes
  // The text without a token is known after the lines that cannot be read.
  const auto file = tokens_of("a.jsonl", a + kBadUtf8 + kNoText + a + a + "[]\n" + a + "7\n" + a);
  EXPECT_EQ(file->skipped().count, 4);
  EXPECT_EQ(file->skipped().places(),
            "line 2 is not UTF-8 (byte 23), line 3 has no text (byte 27), "
            "line 6 is not a JSON object with a string \"text\" (byte 66), ...");
  EXPECT_EQ(tokens_of("b.jsonl", a + kBadUtf8)->skipped().places(),
            "line 2 is not UTF-8 (byte 23)");
}

TEST_F(TokenFileTest, TheCacheKeepsTheCountAndItIsReportedAgain) {
  write_file_atomic(folder / "a.jsonl", good("a") + kBadUtf8 + good("b"));
  const std::string line = (folder / "a.jsonl").string() +
                           ": 1 of 3 documents are skipped: line 2 is not UTF-8 (byte 23)\n";
  EXPECT_THAT(report_of({{folder / "a.jsonl", 1}}, true), EndsWith(line));
  // Now from the cache: that line alone.
  EXPECT_EQ(report_of({{folder / "a.jsonl", 1}}, true), line);
  EXPECT_EQ(report_of({{folder / "a.jsonl", 1}}, false), "");
  EXPECT_EQ(cached().size(), 1u);
  write_file_atomic(folder / "clean.jsonl", good("a"));
  report_of({{folder / "clean.jsonl", 1}}, true);
  EXPECT_EQ(report_of({{folder / "clean.jsonl", 1}}, true), "");
}

TEST_F(TokenFileTest, FilesOfGoodTextsAreAsOlderOnes) {
  tokens_of("a.jsonl", good("a") + good("b"));
  const auto metadata = io::SafetensorsFile(cached().at(0)).metadata();
  EXPECT_EQ(metadata.size(), 3u);
  EXPECT_EQ(metadata.at("form"), "seer tokens 1");
  EXPECT_EQ(metadata.count("skipped"), 0u);
}

TEST_F(TokenFileTest, WhatWasSkippedIsPartOfTheIdentityOnlyWhereSomethingWas) {
  const auto clean = single_mixture(tokens_of("a.jsonl", good("a") + good("b")), tokenizer);
  EXPECT_FALSE(clean.identity()[0].contains("skipped_documents"));
  EXPECT_EQ(clean.skipped_documents(), 0);
  const auto broken = single_mixture(tokens_of("b.jsonl", good("a") + kBadUtf8), tokenizer);
  EXPECT_EQ(broken.identity()[0].at("skipped_documents"), 1);
  EXPECT_EQ(broken.skipped_documents(), 1);
}

TEST_F(TokenFileTest, MoreThanHalfBrokenIsAnError) {
  EXPECT_EQ(tokens_of("half.jsonl", good("a") + kBadUtf8 + kNoText + good("b"))->num_documents(),
            2);
  EXPECT_THAT(
      error_of("a.jsonl", good("a") + kBadUtf8 + kNoField + good("b") + kNoText),
      AllOf(StartsWith((folder / "a.jsonl").string() + ": 3 of 5 documents, more than half"),
            HasSubstr("line 2 is not UTF-8 (byte 23)"), HasSubstr("want a JSON object")));
  EXPECT_THAT(error_of("b.jsonl", kBadUtf8), HasSubstr("1 of 1 documents"));
  EXPECT_EQ(cached().size(), 1u) << "only half.jsonl is in the cache";
}

TEST_F(TokenFileTest, WhatCannotBeReadOnFromStaysAnError) {
  EXPECT_THAT(error_of("a.jsonl", ""), HasSubstr("a.jsonl is empty"));
  EXPECT_THAT(error_of("a.jsonl.zst", good("a")), HasSubstr("cannot be unpacked"));
  EXPECT_THAT(error_of("a.txt", "ab\xFF"), HasSubstr("line 1 is not UTF-8"));
  EXPECT_TRUE(cached().empty());
}

TEST_F(TokenFileTest, OneProcessMakesItAndClearsWhatAnotherHasLeft) {
  tokens_of("a.jsonl", good("one text"));
  const std::filesystem::path path =
      std::filesystem::directory_iterator(folder / "cache")->path();  // the only one
  std::filesystem::remove(path);
  const std::filesystem::path unfinished = path.string() + ".tmp.abcdef";
  write_file_atomic(unfinished, "half of it");
  std::thread other;
  {
    FileLock lock(path.parent_path() / ("." + path.filename().string() + ".lock"));
    ASSERT_TRUE(lock.try_lock());
    other = std::thread([&] { open("a.jsonl"); });
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    EXPECT_FALSE(std::filesystem::exists(path));
  }
  other.join();
  EXPECT_TRUE(std::filesystem::exists(path));
  EXPECT_FALSE(std::filesystem::exists(unfinished));
}

TEST_F(TokenFileTest, ManyDocumentsOnManyThreads) {
  std::string lines, clean;
  for (int i = 0; i < 3000; ++i) {
    const std::string line = good("document " + std::to_string(i) + std::string(2000, 'x'));
    lines += line;
    clean += line;
    if (i % 3 == 0) lines += i % 2 == 0 ? kBadUtf8 : kNoText;
  }
  const auto want = tokens_of("clean.jsonl", clean);
  write_file_atomic(folder / "a.jsonl", lines);
  const auto file = open("a.jsonl", /*threads=*/3);
  EXPECT_EQ(file->hash(), want->hash());
  EXPECT_EQ(file->skipped().count, 1000);
  std::vector<int64_t> first;
  for (const auto& document : file->skipped().first) first.push_back(document.place.line);
  EXPECT_THAT(first, ::testing::ElementsAre(2, 6, 10));
}

TEST_F(TokenFileTest, DamagedCountsAreNamed) {
  tokens_of("a.jsonl", good("a") + kBadUtf8);
  const auto path = cached().at(0);
  std::string bytes = read_file(path);
  const size_t at = bytes.find("\\\"count\\\"");
  ASSERT_NE(at, std::string::npos);
  bytes[at + 2] = 'k';
  write_file_atomic(path, bytes);
  try {
    TokenFile{path};
    FAIL() << "read";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr(path.string()), HasSubstr("skipped documents")));
  }
}

}  // namespace
}  // namespace seer::train
