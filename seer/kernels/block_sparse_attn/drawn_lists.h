#pragma once
// Lists of key blocks drawn at random: what benchmarks, in C++ and in Python, and tests attend to. The same
// arguments give the same lists everywhere.

#include <cstdint>
#include <string_view>
#include <vector>

namespace seer::kernels {

// Rows packed one after another, each ascending: head by head as BlockList has them.
struct DrawnLists {
  std::vector<int64_t> begin;        // [L, R]
  std::vector<int32_t> count, list;  // [L, R], all entries
};

// Row r sees the first visible[r] blocks, of which the last is its diagonal. About `density` of them are
// listed:
//
//   random  each with that probability
//   gate    as gates choose: the first block, the four most recent ones, columns that every row of a head
//           keeps, scattered blocks; the budget differs between heads and between rows
//
// The diagonal always, if `keep_diagonal`. Error: another kind.
DrawnLists draw_lists(std::string_view kind, double density, int num_heads,
                      const std::vector<int>& visible, uint64_t seed, bool keep_diagonal = true);

// What the rows of a sequence see that ends with `rows` query blocks and has `blocks` key blocks.
std::vector<int> causal_rows(int rows, int blocks);

}  // namespace seer::kernels

// For Python (bench/block_lists.py): the lists of causal_rows(). begin, count: [heads, rows]; list: room for
// all visible blocks of all heads. Returns the entries written; -1: another kind.
extern "C" int64_t seer_draw_lists(const char* kind, double density, int heads, int rows,
                                   int blocks, uint64_t seed, int64_t* begin, int32_t* count,
                                   int32_t* list);
