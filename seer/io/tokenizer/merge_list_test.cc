// Both ways to merge a word against the definition: the lowest rank first, the leftmost of equals.
#include "seer/io/tokenizer/merge_list.h"

#include <gtest/gtest.h>

#include "seer/base/random.h"

namespace seer::io {
namespace {

void merge_by_definition(const MergeTable& merges, std::vector<int32_t>& symbols) {
  for (;;) {
    const Merge* best = nullptr;
    size_t at = 0;
    for (size_t i = 0; i + 1 < symbols.size(); ++i) {
      const Merge* merge =
          merges.find(static_cast<uint32_t>(symbols[i]), static_cast<uint32_t>(symbols[i + 1]));
      if (merge && (!best || merge->rank < best->rank)) best = merge, at = i;
    }
    if (!best) return;
    symbols[at] = best->id;
    symbols.erase(symbols.begin() + static_cast<ptrdiff_t>(at) + 1);
  }
}

TEST(MergeList, IsTheDefinition) {
  Random random(1);
  for (int round = 0; round < 300; ++round) {
    // Symbols 0 ... 3, and merges of what is there so far.
    MergeTable merges(40);
    int32_t next = 4;
    for (int32_t rank = 0; rank < 40; ++rank) {
      const auto left = static_cast<uint32_t>(random.below(static_cast<uint64_t>(next)));
      const auto right = static_cast<uint32_t>(random.below(static_cast<uint64_t>(next)));
      if (!merges.find(left, right)) merges.set(left, right, {rank, next++});
    }
    for (const size_t length : {0, 1, 2, 7, 31, 32, 33, 100}) {
      std::vector<int32_t> want(length);
      for (int32_t& symbol : want) symbol = static_cast<int32_t>(random.below(4));
      std::vector<int32_t> got = want;
      merge_by_definition(merges, want);
      merge_symbols(merges, got);
      ASSERT_EQ(got, want) << "round " << round << ", " << length << " symbols";
    }
  }
}

TEST(MergeList, LongWordsTakeNoSquareTime) {
  MergeTable merges(20);
  for (int32_t i = 0; i < 20; ++i) {
    merges.set(static_cast<uint32_t>(i), static_cast<uint32_t>(i), {i, i + 1});
  }
  std::vector<int32_t> symbols(1 << 20, 0);  // 10^12 steps, were it square
  merge_symbols(merges, symbols);
  EXPECT_EQ(symbols, std::vector<int32_t>{20});
}

}  // namespace
}  // namespace seer::io
