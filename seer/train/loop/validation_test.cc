// Held-out windows, by one process and shared by several.
#include "seer/train/loop/validation.h"

#include <ATen/ATen.h>
#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "seer/base/error.h"
#include "seer/train/testing/text_fixture.h"

namespace seer::train {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::ThrowsMessage;

// One of several processes. Keeps what it was to sum; where `total` is defined, that is the sum.
class OneOf : public Ranks {
 public:
  OneOf(int rank, int size, at::Tensor total = {})
      : rank_(rank), size_(size), total_(std::move(total)) {}
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void start_sum(const at::Tensor& x) override {
    part = x.clone();
    if (total_.defined()) x.copy_(total_);
  }
  at::Tensor part;

 private:
  int rank_, size_;
  at::Tensor total_;
};

class Validation : public ::testing::Test {
 protected:
  // Streams of tokens 1000, 1001, ..., of 2000, ..., BOS and EOS around each.
  Mixture streams(const std::vector<int64_t>& sizes) {
    Mixture mixture;
    for (size_t s = 0; s < sizes.size(); ++s) {
      std::vector<int32_t> tokens(static_cast<size_t>(sizes[s]));
      for (size_t i = 0; i < tokens.size(); ++i) {
        tokens[i] = static_cast<int32_t>(1000 * (s + 1) + i);
      }
      const std::string source = "text" + std::to_string(s) + ".jsonl.zst";
      mixture.streams.emplace_back(std::make_shared<const TokenFile>(tokens, source), tokenizer);
    }
    mixture.bos = *tokenizer.bos_id();
    return mixture;
  }
  // The last token and its square; notes the windows.
  std::map<std::string, WindowMeans> means(const HeldOut& held_out, Ranks& ranks) {
    seen.clear();
    const auto measure = [&](const at::Tensor& ids) {
      EXPECT_FALSE(c10::GradMode::is_enabled());
      seen.emplace_back(ids.const_data_ptr<int64_t>(), ids.const_data_ptr<int64_t>() + ids.numel());
      const at::Tensor last = ids[-1].to(at::kDouble);
      return at::stack({last, last.square()});
    };
    return mean_over_windows(held_out, 2, at::kCPU, measure, ranks);
  }

  io::Tokenizer tokenizer = io::Tokenizer::load(reference_tokenizer());
  std::vector<std::vector<int64_t>> seen;
};

TEST_F(Validation, MeansOverTheFirstWindowsOfEachStream) {
  const Mixture text = streams({9, 2, 5});
  const int64_t bos = text.bos;
  Ranks alone;
  const auto result = means({text, 4, 2}, alone);  // BOS and 3 tokens; the second stream has 4
  EXPECT_THAT(seen,
              ElementsAre(ElementsAre(bos, bos, 1000, 1001), ElementsAre(bos, 1002, 1003, 1004),
                          ElementsAre(bos, bos, 2000, 2001), ElementsAre(bos, bos, 3000, 3001),
                          ElementsAre(bos, 3002, 3003, 3004)));
  ASSERT_EQ(result.size(), 3u);
  EXPECT_THAT(result.at("text0").means, ElementsAre(1002.5, (1001.0 * 1001 + 1004.0 * 1004) / 2));
  EXPECT_THAT(result.at("text1").means, ElementsAre(2001, 2001.0 * 2001));
  EXPECT_THAT(result.at("text2").means[0], 3002.5);
}

TEST_F(Validation, StreamsThatAreTooShortAreLeftOut) {
  const Mixture text = streams({2, 20});
  Ranks alone;
  const auto result = means({text, 8, 1}, alone);
  EXPECT_EQ(result.size(), 1u);
  EXPECT_EQ(result.count("text1"), 1u);
  EXPECT_TRUE(means({text, 100, 1}, alone).empty());
  EXPECT_TRUE(means({Mixture{}, 8, 1}, alone).empty());
}

TEST_F(Validation, WindowsThatAreNotFiniteAreLeftOutAndCounted) {
  const Mixture text = streams({12, 3});
  Ranks alone;
  const auto measure = [&](const at::Tensor& ids) {
    const double last = ids[-1].to(at::kDouble).item<double>();
    return at::tensor({last, last == 1004 || last == 2001 ? NAN : 1.0}, at::kDouble);
  };
  const auto result = mean_over_windows({text, 4, 3}, 2, at::kCPU, measure, alone);
  EXPECT_THAT(result.at("text0").means, ElementsAre((1001.0 + 1007.0) / 2, 1));
  EXPECT_EQ(result.at("text0").skipped, 1);
  EXPECT_EQ(result.at("text1").skipped, 1);
  EXPECT_TRUE(std::isnan(result.at("text1").means[0]));
}

TEST_F(Validation, TextsThatCannotBeUsedAreRefused) {
  EXPECT_THAT(
      [&] { check_held_out({streams({40, 2}), 8, 1}); },
      ThrowsMessage<Error>(HasSubstr("text1.jsonl.zst has 4 tokens, less than a window of 8")));
  Mixture twice = streams({40});
  twice.streams.push_back(twice.streams[0]);
  EXPECT_THAT([&] { check_held_out({twice, 8, 1}); },
              ThrowsMessage<Error>(HasSubstr("two held-out texts have the name text0")));
}

TEST_F(Validation, ProcessesShareTheWindowsAndGetTheSameMeans) {
  const Mixture text = streams({40, 7, 25, 40});
  const HeldOut held_out{text, 5, 3};
  Ranks alone;
  const auto want = means(held_out, alone);
  const auto all = seen;
  ASSERT_EQ(all.size(), 11u);  // 3, 2, 3, 3
  for (const int size : {2, 3, 16}) {
    std::vector<std::vector<int64_t>> shared;
    at::Tensor total;
    for (int rank = 0; rank < size; ++rank) {
      OneOf ranks(rank, size);
      means(held_out, ranks);
      EXPECT_GE(seen.size(), all.size() / static_cast<size_t>(size)) << rank << " of " << size;
      EXPECT_LE(seen.size(), all.size() / static_cast<size_t>(size) + 1) << rank << " of " << size;
      shared.insert(shared.end(), seen.begin(), seen.end());
      total = total.defined() ? total + ranks.part : ranks.part;
    }
    EXPECT_THAT(shared, ::testing::UnorderedElementsAreArray(all)) << size;
    for (int rank = 0; rank < size; ++rank) {
      OneOf ranks(rank, size, total);
      EXPECT_EQ(means(held_out, ranks), want) << rank << " of " << size;
    }
  }
}

}  // namespace
}  // namespace seer::train
