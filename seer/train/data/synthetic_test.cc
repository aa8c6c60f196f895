#include "seer/train/data/synthetic.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "seer/train/testing/text_fixture.h"

namespace seer::train {
namespace {

class SyntheticTest : public ::testing::Test {
 protected:
  SyntheticTest()
      : tokenizer(io::Tokenizer::load(reference_tokenizer())),
        synthetic(tokenizer, tokenizer.vocab_size()) {}

  // A window of all different ids, far above the vocabulary, so that what was written can be seen.
  static std::vector<int32_t> plain(int64_t length) {
    std::vector<int32_t> window(static_cast<size_t>(length));
    for (int64_t i = 0; i < length; ++i)
      window[static_cast<size_t>(i)] = static_cast<int32_t>(1000000 + i);
    return window;
  }
  // Every fact told in the window (its five words), with the number of times.
  std::map<std::vector<int32_t>, int> facts(const std::vector<int32_t>& window) const {
    const auto head = tokenizer.encode("\nRemember this:", false);
    std::map<std::vector<int32_t>, int> found;
    for (auto at = window.begin();;) {
      at = std::search(at, window.end(), head.begin(), head.end());
      if (at == window.end()) return found;
      at += static_cast<std::ptrdiff_t>(head.size());
      ++found[std::vector<int32_t>(at, at + 5)];
    }
  }

  io::Tokenizer tokenizer;
  Synthetic synthetic;
};

TEST_F(SyntheticTest, EveryFactIsToldTwiceInTheStatedNumber) {
  const struct {
    int64_t length;
    size_t least, most;
  } rows[] = {{2048, 4, 16}, {8192, 4, 63}, {512, 1, 4}};
  for (const auto& row : rows) {
    size_t fewest = 1000, most = 0;
    for (uint64_t i = 0; i < 50; ++i) {
      auto window = plain(row.length);
      synthetic.write(Random(1, i), row.length, window.data());
      const auto found = facts(window);
      for (const auto& [words, times] : found) EXPECT_EQ(times, 2);
      fewest = std::min(fewest, found.size());
      most = std::max(most, found.size());
      EXPECT_EQ(window[0], 1000000) << "the first token stays";
    }
    EXPECT_GE(fewest, row.least) << row.length;
    EXPECT_LE(most, row.most) << row.length;
  }
}

TEST_F(SyntheticTest, AFactReadsAsText) {
  auto window = plain(2048);
  synthetic.write(Random(1, 0), 2048, window.data());
  const auto words = facts(window).begin()->first;
  const std::string text = tokenizer.decode(words, true);
  EXPECT_EQ(std::count(text.begin(), text.end(), ' '), 5) << text;
  EXPECT_EQ(tokenizer.encode("\nRemember this:" + text + ".\n", false).size(),
            static_cast<size_t>(synthetic.fact_len()))
      << "the tokenizer reads the fact as it was written";
}

TEST_F(SyntheticTest, PassagesComeBackLater) {
  int passages = 0;
  for (uint64_t i = 0; i < 30; ++i) {
    auto window = plain(2048);
    synthetic.write(Random(1, i), 2048, window.data());
    int64_t run = 0;
    for (int64_t at = 0; at < 2048; ++at) {
      const int32_t token = window[static_cast<size_t>(at)];
      const bool is_copy = token >= 1000000 && token != 1000000 + at;
      if (is_copy) EXPECT_LT(token, 1000000 + at) << "copied from before";
      const bool goes_on = is_copy && run > 0 && token == window[static_cast<size_t>(at - 1)] + 1;
      if (run > 0 && !goes_on) {
        EXPECT_GE(run, 32);
        EXPECT_LE(run, 256);
        ++passages;
      }
      run = is_copy ? (goes_on ? run + 1 : 1) : 0;
    }
  }
  EXPECT_GT(passages, 40);
  EXPECT_LE(passages, 120);
}

TEST_F(SyntheticTest, ShareAndReproducibility) {
  const int64_t vocab_size = tokenizer.vocab_size();
  const SyntheticShare share(0.2, 3, tokenizer, vocab_size), same(0.2, 3, tokenizer, vocab_size),
      none(0, 3, tokenizer, vocab_size);
  int changed = 0;
  for (uint64_t i = 0; i < 500; ++i) {
    auto a = plain(256), b = plain(256), c = plain(256);
    share.apply(i, 256, a.data());
    same.apply(i, 256, b.data());
    none.apply(i, 256, c.data());
    EXPECT_EQ(a, b);
    EXPECT_EQ(c, plain(256));
    changed += a != c;
  }
  EXPECT_NEAR(changed, 100, 27);  // 3 standard deviations
}

TEST_F(SyntheticTest, ShortWindowsAreLeftWhole) {
  for (int64_t length = 1; length < 40; ++length) {
    auto window = plain(length);
    synthetic.write(Random(1, static_cast<uint64_t>(length)), length, window.data());
    EXPECT_EQ(window[0], 1000000);
    EXPECT_TRUE(facts(window).empty());
  }
}

}  // namespace
}  // namespace seer::train
