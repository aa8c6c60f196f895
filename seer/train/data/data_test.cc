#include "seer/train/data/data.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <set>

#include "seer/base/error.h"
#include "seer/io/text.h"
#include "seer/train/testing/run_fixture.h"
#include "seer/train/testing/text_fixture.h"

namespace seer::train {
namespace {

using ::testing::HasSubstr;

class Data : public RunTest {
 protected:
  Data() : tokenizer(io::Tokenizer::load(reference_tokenizer())) {}

  std::shared_ptr<const TokenFile> tokens_of(const std::string& name, int threads = 2) {
    return open_tokens(folder / name, tokenizer, reference_tokenizer(), folder / "cache", threads);
  }
  // One stream of n tokens 100, 101, ...: positions can be read off.
  Mixture counted(int64_t n) {
    std::vector<int32_t> tokens(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) tokens[static_cast<size_t>(i)] = static_cast<int32_t>(100 + i);
    return single_mixture(std::make_shared<const TokenFile>(tokens, "counted"), tokenizer);
  }
  template <class F>
  std::string error_of(F call) {
    try {
      call();
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  io::Tokenizer tokenizer;
};

TEST_F(Data, TokenFileHoldsEveryDocumentInOrder) {
  write_documents(folder / "a.jsonl", 40, 30, 5);
  const auto file = tokens_of("a.jsonl");
  ASSERT_EQ(file->num_documents(), 40);
  int64_t i = 0;
  io::for_each_document(folder / "a.jsonl", [&](std::string&& text) {
    const auto want = tokenizer.encode(text, false);
    const int64_t begin = file->offsets()[static_cast<size_t>(i)];
    const int64_t count = file->offsets()[static_cast<size_t>(i + 1)] - begin;
    std::vector<int32_t> got(static_cast<size_t>(count));
    file->copy(begin, count, got.data());
    EXPECT_EQ(got, want) << i;
    ++i;
  });
}

TEST_F(Data, StreamPutsBosAndEosAroundDocuments) {
  write_documents(folder / "a.jsonl", 3, 1, 5);
  const TokenStream stream(tokens_of("a.jsonl"), tokenizer);
  std::vector<int32_t> want;
  io::for_each_document(folder / "a.jsonl", [&](std::string&& text) {
    want.push_back(*tokenizer.bos_id());
    for (const int32_t id : tokenizer.encode(text, false)) want.push_back(id);
    want.push_back(*tokenizer.eos_id());
  });
  ASSERT_EQ(stream.size(), static_cast<int64_t>(want.size()));
  // Every place and length, round the end too.
  for (int64_t begin = 0; begin < stream.size(); ++begin) {
    for (const int64_t count : {int64_t{1}, int64_t{7}, stream.size()}) {
      std::vector<int32_t> got(static_cast<size_t>(count), -1);
      stream.copy(begin, count, got.data());
      for (int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(got[static_cast<size_t>(i)],
                  want[static_cast<size_t>((begin + i) % stream.size())])
            << begin << " " << i;
      }
    }
  }
}

TEST_F(Data, ShuffledStreamHasTheSameDocuments) {
  write_documents(folder / "a.jsonl", 20, 3, 5);
  const TokenStream stream(tokens_of("a.jsonl"), tokenizer);
  const auto all = [&](const TokenStream& from) {
    std::vector<int32_t> tokens(static_cast<size_t>(from.size()));
    from.copy(0, from.size(), tokens.data());
    return tokens;
  };
  auto plain = all(stream), first = all(stream.shuffled(1, 0)), second = all(stream.shuffled(1, 1));
  EXPECT_EQ(all(stream.shuffled(1, 0)), first);
  EXPECT_NE(first, plain);
  EXPECT_NE(first, second);
  std::sort(plain.begin(), plain.end());
  std::sort(first.begin(), first.end());
  EXPECT_EQ(first, plain);
}

TEST_F(Data, PackedWindowsShowEveryTokenOncePerEpoch) {
  const Mixture mixture = counted(1000);  // a stream of 1002
  const int64_t length = 101;             // BOS and 100 tokens: 10 windows, a rest of 2
  PackedWindows windows(mixture, 7, length);
  for (uint64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<int32_t> seen;
    std::vector<int32_t> window(static_cast<size_t>(length));
    for (uint64_t i = 0; i < 10; ++i) {
      windows.window(epoch * 10 + i, window.data());
      EXPECT_EQ(window[0], *tokenizer.bos_id());
      seen.insert(window.begin() + 1, window.end());
    }
    EXPECT_EQ(seen.size(), 1000u) << "of 1002 different tokens, 2 left out";
  }
}

TEST_F(Data, PackedWindowsDependOnTheIndexAlone) {
  const Mixture mixture = counted(5000);
  PackedWindows forward(mixture, 7, 65), resumed(mixture, 7, 65), other(mixture, 8, 65);
  std::vector<std::vector<int32_t>> windows(200, std::vector<int32_t>(65));
  for (size_t i = 0; i < windows.size(); ++i) forward.window(i, windows[i].data());
  std::vector<int32_t> window(65);
  for (const size_t i : {150u, 3u, 199u, 77u}) {
    resumed.window(i, window.data());
    EXPECT_EQ(window, windows[i]) << i;
  }
  other.window(3, window.data());
  EXPECT_NE(window, windows[3]);
}

TEST_F(Data, PackedWindowsKeepTheWeights) {
  write_documents(folder / "a.jsonl", 10, 30, 5);
  std::ofstream(folder / "b.txt") << std::string(20000, '7');
  DataSettings settings;
  settings.cache = folder / "cache";
  const Mixture mixture = open_mixture({folder / "a.jsonl", folder / "b.txt"}, {3, 1}, settings,
                                       tokenizer, reference_tokenizer(), tokenizer.vocab_size());
  PackedWindows windows(mixture, 7, 33);
  const int32_t seven = tokenizer.encode("777", false)[0];
  int sevens = 0;
  std::vector<int32_t> window(33);
  for (uint64_t i = 0; i < 100; ++i) {
    windows.window(i, window.data());
    sevens += std::count(window.begin(), window.end(), seven) > 16;
  }
  EXPECT_EQ(sevens, 25);
}

TEST_F(Data, RandomWindowsKeepTheWeightsAndBeginWithBos) {
  write_documents(folder / "a.jsonl", 10, 30, 5);
  std::ofstream(folder / "b.txt") << std::string(20000, '7');
  DataSettings settings;
  settings.cache = folder / "cache";
  const Mixture mixture = open_mixture({folder / "a.jsonl", folder / "b.txt"}, {0.6, 0.4}, settings,
                                       tokenizer, reference_tokenizer(), tokenizer.vocab_size());
  const RandomWindows windows(mixture, 7);
  const int32_t seven = tokenizer.encode("777", false)[0];
  int sevens = 0;
  std::set<std::vector<int32_t>> different;
  std::vector<int32_t> window(33), again(33);
  for (uint64_t i = 0; i < 1000; ++i) {
    windows.window(i, 33, window.data());
    ASSERT_EQ(window[0], *tokenizer.bos_id());
    sevens += std::count(window.begin(), window.end(), seven) > 16;
    different.insert(window);
  }
  EXPECT_NEAR(sevens, 400, 50);  // 3 standard deviations
  EXPECT_GT(different.size(), 300u);
  windows.window(999, 33, again.data());
  EXPECT_EQ(again, window);
}

TEST_F(Data, ATokenOutsideOfTheVocabularyIsNamedWithItsDocument) {
  write_documents(folder / "a.jsonl", 3, 5, 5);
  const auto error = [&](int64_t vocab_size) {
    DataSettings settings;
    settings.cache = folder / "cache";
    settings.show_progress = false;
    return error_of([&] {
      open_mixture({folder / "a.jsonl"}, {}, settings, tokenizer, reference_tokenizer(),
                   vocab_size);
    });
  };
  std::vector<std::vector<int32_t>> documents;
  int32_t largest = 0;
  io::for_each_document(folder / "a.jsonl", [&](std::string&& text) {
    documents.push_back(tokenizer.encode(text, false));
    for (const int32_t id : documents.back()) largest = std::max(largest, id);
  });
  const auto holds = [&](const auto& ids) {
    return std::find(ids.begin(), ids.end(), largest) != ids.end();
  };
  const auto first = std::find_if(documents.begin(), documents.end(), holds) - documents.begin();
  EXPECT_THAT(error(largest),
              HasSubstr(message("a.jsonl, document ", first + 1, ": token ", largest, " (\"",
                                tokenizer.decode({largest}, false), "\")")));
  EXPECT_EQ(error(largest + 1), "");
  EXPECT_THAT(error(0), HasSubstr("documents of "));  // BOS and EOS are not there
}

TEST_F(Data, TooLittleTextIsAnError) {
  const Mixture mixture = counted(50);
  EXPECT_THAT(error_of([&] { PackedWindows(mixture, 1, 60); }),
              HasSubstr("counted has 52 tokens, fewer than one window of 60"));
  std::vector<int32_t> window(60);
  EXPECT_THAT(error_of([&] { RandomWindows(mixture, 1).window(0, 60, window.data()); }),
              HasSubstr("fewer than one window"));
  EXPECT_THAT(error_of([&] { open_mixture({}, {}, {}, tokenizer, reference_tokenizer(), 1); }),
              HasSubstr("no training text"));
}

}  // namespace
}  // namespace seer::train
