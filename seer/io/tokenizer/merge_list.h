#pragma once
// Byte-pair encoding of one word: joins the neighbours whose merge has the lowest rank, the leftmost
// first, until no merge fits.

#include <cstdint>
#include <vector>

#include "seer/io/tokenizer/pair_table.h"

namespace seer::io {

struct Merge {
  int32_t rank, id;
};
using MergeTable = PairTable<Merge>;

// `symbols` in place. Time n^2 with a small factor below some length, n log n above.
void merge_symbols(const MergeTable& merges, std::vector<int32_t>& symbols);

}  // namespace seer::io
