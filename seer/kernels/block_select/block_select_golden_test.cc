// Masks of the published code, with the diagonal added; and its k over a table of ratios and
// lengths.

#include <gtest/gtest.h>

#include <cstring>
#include <optional>
#include <regex>
#include <string>
#include <vector>

#include "seer/io/testing/golden.h"
#include "seer/kernels/block_select/block_select.h"
#include "seer/kernels/block_select/row_rule.h"

namespace seer::kernels {
namespace {

constexpr int kBlock = 16;

// A mask's name: "a/nz_ratio_0.1/last_dense_1".
struct MaskName {
  std::string scores, rule, strength;
  bool last_dense;
};

// Nothing where the tensor is not a mask.
std::optional<MaskName> mask_name(const std::string& tensor) {
  static const std::regex form("(.*)/([a-z_]+)_([0-9.]+)/last_dense_([01])");
  std::smatch part;
  if (!std::regex_match(tensor, part, form)) return std::nullopt;
  return MaskName{part[1].str() + "/scores", part[2], part[3], part[4] == "1"};
}

void check_mask(const io::Golden& golden, const std::string& tensor, const MaskName& name) {
  SCOPED_TRACE(tensor);
  const auto shape = golden.shape(tensor);  // [b, H, n, n]
  const int64_t seqs = shape[0], heads = shape[1], n = shape[2];
  const auto scores = golden.floats(name.scores);
  const auto mask = golden.bytes(tensor);
  for (int64_t b = 0; b < seqs; ++b) {
    const std::vector<int32_t> cu{0, static_cast<int32_t>(n * kBlock)};
    const std::vector<int32_t> cu_rows{0, static_cast<int32_t>(n)};
    const std::vector<double> strengths(heads, std::stod(name.strength));
    std::vector<int64_t> begin(heads * n);
    std::vector<int32_t> count(heads * n);
    BlockSelectParams p{};
    p.scores = scores.data() + b * heads * n * n;
    p.cu_q = p.cu_k = cu.data();
    p.cu_rows = cu_rows.data();
    p.strength = strengths.data();
    p.begin = begin.data();
    p.count = count.data();
    p.num_seqs = 1;
    p.num_heads = static_cast<int>(heads);
    p.num_rows = p.num_blocks = n;
    p.block = kBlock;
    p.rule = select_rule(name.rule).rule;
    p.forced.last_dense_rows = name.last_dense ? 2 : 0;
    p.capacity = block_select_capacity(p);
    std::vector<int32_t> list(p.capacity);
    p.list = list.data();
    block_select(p, {});
    for (int64_t row = 0; row < heads * n; ++row) {
      std::vector<uint8_t> got(n), want(n);
      for (int32_t i = 0; i < count[row]; ++i) got[list[begin[row] + i]] = 1;
      std::memcpy(want.data(), mask.data() + (b * heads * n + row) * n, n);
      want[row % n] = 1;
      ASSERT_EQ(got, want) << "sequence " << b << ", row " << row;
    }
  }
}

TEST(BlockSelectGolden, Masks) {
  for (const io::Golden& golden : io::Golden::sets("select")) {
    SCOPED_TRACE(golden.path());
    int masks = 0;
    for (const std::string& tensor : golden.names()) {
      const auto name = mask_name(tensor);
      if (!name) continue;
      check_mask(golden, tensor, *name);
      ++masks;
    }
    EXPECT_GT(masks, 0);
  }
}

// k of a row for every ratio and length of the table.
void check_top_k(const io::Golden& golden) {
  const auto k = golden.ints("topk/k"), n = golden.ints("topk/n");
  const auto bits = golden.ints("topk/nz_ratio");  // f64 as two I32
  for (size_t i = 0; i < bits.size() / 2; ++i) {
    double ratio = 0;
    std::memcpy(&ratio, &bits[2 * i], sizeof ratio);
    BlockSelectParams p{};
    p.rule = SelectRule::nz_ratio;
    p.strength = &ratio;
    for (size_t j = 0; j < n.size(); ++j) {
      ASSERT_EQ(best_of_row(p, 0).of(n[j]), k[i * n.size() + j]) << ratio << " " << n[j];
    }
  }
}

TEST(BlockSelectGolden, TopK) {
  int tables = 0;
  for (const io::Golden& golden : io::Golden::sets("select")) {
    if (!golden.contains("topk/k")) continue;
    check_top_k(golden);
    ++tables;
  }
  if (tables == 0) GTEST_SKIP() << "the table of k is among the published code's vectors only";
}

// Values that tell double from float, and this order of operations from another.
TEST(BlockSelectGolden, TopKOfSomeLengths) {
  const struct {
    double ratio;
    int64_t n, k;
  } kCases[] = {{0.1, 64, 3},   {0.1, 512, 26}, {0.5, 41, 12}, {0.36, 10, 1}, {0.75, 128, 64},
                {0.19, 100, 9}, {0.51, 10, 3},  {1.0, 7, 7},   {0.0, 7, 1}};
  for (const auto& c : kCases) {
    BlockSelectParams p{};
    p.rule = SelectRule::nz_ratio;
    p.strength = &c.ratio;
    EXPECT_EQ(best_of_row(p, 0).of(c.n), c.k) << c.ratio << " " << c.n;
  }
}

}  // namespace
}  // namespace seer::kernels
