#include "seer/eval/windows.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "seer/base/error.h"

namespace seer::eval {
namespace {

TEST(DocumentWindows, CutsLongDocumentsAndPutsBosFirst) {
  const std::vector<std::vector<int32_t>> documents = {{5, 6, 7},
                                                       std::vector<int32_t>(16, 9),
                                                       std::vector<int32_t>(15, 8),
                                                       std::vector<int32_t>(40, 7)};
  const Windows windows = document_windows(documents, 4, 4, 8, 1);
  ASSERT_EQ(windows.ids.size(), 2u);  // the third is one token short of four lengths
  EXPECT_EQ(windows.ids[0], (std::vector<int32_t>{1, 9, 9, 9}));
  EXPECT_EQ(windows.ids[1], (std::vector<int32_t>{1, 7, 7, 7}));
  EXPECT_EQ(document_windows(documents, 4, 4, 1, 1).ids.size(), 1u);
  EXPECT_EQ(document_windows(documents, 4, 4, 8, -1).ids[0], (std::vector<int32_t>{9, 9, 9, 9}));
}

TEST(DocumentWindows, SaysHowLongTheLongestIs) {
  try {
    document_windows({{1, 2, 3}}, 100, 4, 8, 1);
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
