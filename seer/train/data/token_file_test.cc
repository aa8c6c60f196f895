// Token files of texts with broken documents.
#include "seer/train/data/token_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "seer/base/error.h"
#include "seer/base/file.h"
#include "seer/base/file_lock.h"
#include "seer/io/safetensors.h"
#include "seer/train/data/data.h"
#include "seer/train/testing/run_fixture.h"
#include "seer/train/testing/text_fixture.h"

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
  std::string report_of(const std::filesystem::path& file, bool show_progress) {
    DataSettings settings;
    settings.cache = folder / "cache";
    settings.show_progress = show_progress;
    ::testing::internal::CaptureStderr();
    open_mixture({file}, {}, settings, tokenizer, reference_tokenizer(), tokenizer.vocab_size());
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
                           ": 1 of 3 documents is skipped: line 2 is not UTF-8 (byte 23)\n";
  EXPECT_THAT(report_of(folder / "a.jsonl", true), EndsWith(line));
  // Now from the cache: that line alone.
  EXPECT_EQ(report_of(folder / "a.jsonl", true), line);
  EXPECT_EQ(report_of(folder / "a.jsonl", false), "");
  EXPECT_EQ(cached().size(), 1u);
  write_file_atomic(folder / "clean.jsonl", good("a"));
  report_of(folder / "clean.jsonl", true);
  EXPECT_EQ(report_of(folder / "clean.jsonl", true), "");
}

TEST_F(TokenFileTest, FollowsTheContentNotSizeTimeOrPlace) {
  const auto path = folder / "a.jsonl";
  const std::string hash = tokens_of("a.jsonl", good("one river"))->hash();
  const auto time = std::filesystem::last_write_time(path);
  EXPECT_EQ(cached().size(), 1u);
  // As many bytes, written at the same time.
  write_file_atomic(path, good("two river"));
  std::filesystem::last_write_time(path, time);
  const std::string other = open("a.jsonl")->hash();
  EXPECT_NE(other, hash);
  EXPECT_EQ(cached().size(), 2u);
  // The same bytes elsewhere, at another time.
  std::filesystem::create_directories(folder / "copy");
  write_file_atomic(folder / "copy" / "a.jsonl", good("two river"));
  std::filesystem::last_write_time(folder / "copy" / "a.jsonl", time - std::chrono::hours(1));
  EXPECT_EQ(open("copy/a.jsonl")->hash(), other);
  EXPECT_EQ(cached().size(), 2u);
}

TEST_F(TokenFileTest, FollowsTheTokenizer) {
  write_file_atomic(folder / "a.jsonl", good("one river"));
  const auto other = folder / "tokenizer";
  std::filesystem::create_directories(other);
  for (const char* name : {"tokenizer.json", "tokenizer_config.json"}) {
    std::filesystem::copy(reference_tokenizer() / name, other / name);
  }
  const auto open_with = [&](const std::filesystem::path& tokenizer_folder) {
    open_tokens(folder / "a.jsonl", tokenizer, tokenizer_folder, folder / "cache", 1, false);
    return cached().size();
  };
  EXPECT_EQ(open_with(reference_tokenizer()), 1u);
  EXPECT_EQ(open_with(other), 1u) << "the same files elsewhere";
  write_file_atomic(other / "tokenizer_config.json", "{}");
  EXPECT_EQ(open_with(other), 2u);
}

TEST_F(TokenFileTest, ANameNeedNotBeUtf8) {
  const auto file = tokens_of("caf\xE9.jsonl", good("one river"));
  EXPECT_EQ(file->num_documents(), 1);
  EXPECT_NO_THROW(nlohmann::json(file->source()).dump());
  EXPECT_THAT(file->source(), AllOf(StartsWith("caf"), EndsWith(".jsonl")));
}

TEST_F(TokenFileTest, DamagedFilesAreToldAndMadeAgain) {
  const std::string hash = tokens_of("a.jsonl", good("one river") + kBadUtf8)->hash();
  const auto path = cached().at(0);
  const std::string whole = read_file(path);
  std::vector<std::string> damaged = {"", whole.substr(0, whole.size() - 8), "no token file"};
  for (const size_t byte : {size_t{3}, size_t{40}, whole.find("count"), whole.size() - 1}) {
    damaged.push_back(whole);
    damaged.back()[byte] ^= 1;
  }
  for (const std::string& bytes : damaged) {
    write_file_atomic(path, bytes);
    EXPECT_THROW(TokenFile{path}, Error);
    ::testing::internal::CaptureStderr();
    const auto file = open_tokens(folder / "a.jsonl", tokenizer, reference_tokenizer(),
                                  folder / "cache", 1, /*show_progress=*/true);
    const std::string told = ::testing::internal::GetCapturedStderr();
    EXPECT_THAT(told, AllOf(HasSubstr(path.string()), HasSubstr("it is made again")));
    EXPECT_EQ(file->hash(), hash);
    EXPECT_EQ(file->skipped().count, 1);
    EXPECT_EQ(read_file(path), whole);
  }
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
  EXPECT_THAT(error_of("b.jsonl", kBadUtf8), HasSubstr("1 of 1 document, "));
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

}  // namespace
}  // namespace seer::train
