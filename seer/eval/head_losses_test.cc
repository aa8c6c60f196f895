// Losses of heads as tables of small and large models, and as a picture.

#include "seer/eval/head_losses.h"

#include <ATen/ATen.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <string>

#include "seer/base/error.h"
#include "seer/eval/head_grid.h"

namespace seer::eval {
namespace {

using testing::HasSubstr;
using testing::Not;

// Head h of layer l loses (l + 10 h) / 100; no head is a lookup head, layer 1 is not measured.
HeadLosses some_losses(int64_t layers, int64_t heads) {
  const auto options = at::TensorOptions(at::kDouble);
  at::Tensor lost = at::arange(layers, options).unsqueeze(1) + 10 * at::arange(heads, options);
  lost = lost / 100;
  lost[1].fill_(std::numeric_limits<double>::quiet_NaN());
  return {lost, std::vector<std::vector<int>>(static_cast<size_t>(layers))};
}

TEST(HeadLosses, SmallModelsShowAllHeads) {
  HeadLosses losses = some_losses(3, 2);
  EXPECT_EQ(to_table(losses),
            "layer  head 0        1\n"
            "    0   0.000    0.100\n"
            "    1\n"
            "    2   0.020    0.120\n"
            "lost, mean of 4 heads: 0.060\n");
  losses.lookup_heads[2] = {1};
  EXPECT_THAT(to_table(losses), HasSubstr("    2   0.020    0.120*\n"
                                          "lost, mean of 4 heads: 0.060; of 1 lookup head (*): "
                                          "0.120; of the others: 0.040\n"));
}

TEST(HeadLosses, LargeModelsShowTheNeediest) {
  HeadLosses losses = some_losses(30, 9);
  losses.lookup_heads[29] = {8};
  const std::string table = to_table(losses);
  EXPECT_EQ(std::count(table.begin(), table.end(), '\n'), 1 + 20 + 1);
  EXPECT_EQ(table.find("   29     8  1.090  yes"), table.find('\n') + 1) << table;
  EXPECT_THAT(table, HasSubstr("\n   25     7  0.950\nlost, mean of 261 heads: "));
  EXPECT_THAT(table, Not(HasSubstr("\n   14     8  ")));
}

TEST(HeadLosses, ThePictureFramesLookupHeads) {
  HeadLosses losses = some_losses(30, 9);
  const auto frames = [&] {
    const report::Image image = head_losses_picture(losses, "title");
    int count = 0;
    for (int y = 0; y < image.height(); ++y) {
      for (int x = 0; x < image.width(); ++x) count += image.at(x, y) == kFrame ? 1 : 0;
    }
    return count;
  };
  const int of_legend = frames();
  EXPECT_GT(of_legend, 0);
  losses.lookup_heads[0] = {3};
  const int with_one = frames();
  EXPECT_GT(with_one, of_legend);
  losses.lookup_heads[29] = {8};
  EXPECT_EQ(frames() - with_one, with_one - of_legend);
}

TEST(HeadLosses, NothingToShow) {
  HeadLosses losses = some_losses(2, 2);
  losses.lost.fill_(std::numeric_limits<double>::quiet_NaN());
  try {
    to_table(losses);
    FAIL() << "no error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("no head chooses blocks"));
  }
}

}  // namespace
}  // namespace seer::eval
