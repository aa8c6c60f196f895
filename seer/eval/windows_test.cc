#include "seer/eval/windows.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "seer/base/error.h"

namespace seer::eval {
namespace {

std::vector<Windows> cut(const std::vector<std::vector<int32_t>>& documents,
                         const std::vector<int64_t>& lengths, int64_t max_documents, int bos) {
  WindowCutter cutter(lengths, /*min_ratio=*/4, max_documents, bos);
  for (const auto& document : documents) cutter.add(document);
  return cutter.take();
}

TEST(WindowCutter, CutsLongDocumentsAndPutsBosFirst) {
  const std::vector<std::vector<int32_t>> documents = {{5, 6, 7},
                                                       std::vector<int32_t>(16, 9),
                                                       std::vector<int32_t>(15, 8),
                                                       std::vector<int32_t>(40, 7)};
  const Windows windows = cut(documents, {4}, 8, 1)[0];
  EXPECT_EQ(windows.length, 4);
  ASSERT_EQ(windows.ids.size(), 2u);  // the third is one token short of four lengths
  EXPECT_EQ(windows.ids[0], (std::vector<int32_t>{1, 9, 9, 9}));
  EXPECT_EQ(windows.ids[1], (std::vector<int32_t>{1, 7, 7, 7}));
  EXPECT_EQ(cut(documents, {4}, 8, -1)[0].ids[0], (std::vector<int32_t>{9, 9, 9, 9}));
}

TEST(WindowCutter, EachLengthTakesTheFirstDocumentsThatAreLongEnoughForIt) {
  const std::vector<std::vector<int32_t>> documents = {
      std::vector<int32_t>(8, 1), std::vector<int32_t>(40, 2), std::vector<int32_t>(40, 3)};
  const auto windows = cut(documents, {10, 2}, 1, -1);
  EXPECT_EQ(windows[0].ids, (std::vector<std::vector<int32_t>>{std::vector<int32_t>(10, 2)}));
  EXPECT_EQ(windows[1].ids, (std::vector<std::vector<int32_t>>{{1, 1}}));
}

TEST(WindowCutter, TakesFurtherWindowsOfFewDocuments) {
  const auto cut = [](int64_t max_documents) {
    WindowCutter cutter({4}, 1, max_documents, 1, /*further=*/true);
    cutter.add({10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20});
    cutter.add({30, 31, 32, 33, 34, 35});
    return cutter.take()[0].ids;
  };
  EXPECT_EQ(cut(4), (std::vector<std::vector<int32_t>>{
                        {1, 10, 11, 12}, {1, 30, 31, 32}, {1, 13, 14, 15}, {1, 33, 34, 35}}));
  EXPECT_EQ(cut(2), (std::vector<std::vector<int32_t>>{{1, 10, 11, 12}, {1, 30, 31, 32}}));
  EXPECT_EQ(cut(9).size(), 5u) << "all that there are";
}

TEST(WindowCutter, WantsNoMoreThanItUses) {
  WindowCutter cutter({10, 2}, 4, 1, -1);
  cutter.add(std::vector<int32_t>(8, 1));
  EXPECT_TRUE(cutter.wants_more());
  cutter.add(std::vector<int32_t>(40, 1));
  EXPECT_FALSE(cutter.wants_more());
}

TEST(WindowCutter, SaysHowLongTheLongestIs) {
  WindowCutter cutter({100}, 4, 8, 1);
  cutter.add({1, 2, 3});
  try {
    cutter.take();
    FAIL() << "no error";
  } catch (const Error& e) {
    EXPECT_THAT(e.what(), testing::HasSubstr("the longest has 3"));
  }
}

TEST(IdsOf, AreAsADecoderTakesThem) {
  EXPECT_TRUE(at::equal(ids_of({7, 0, 120}, at::kCPU), at::tensor({7, 0, 120}, at::kLong)));
}

}  // namespace
}  // namespace seer::eval
