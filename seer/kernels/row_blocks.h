#pragma once
// Which key blocks the queries of a row may see, and where a row belongs. constexpr: CUDA kernels
// call these functions, too.

#include <algorithm>
#include <cstdint>

namespace seer::kernels {

// A row is a block of queries; the queries are the last len_q of the sequence's len_k positions.
// Its queries see key blocks 0 .. end - 1 (the last one perhaps in part); blocks diagonal .. end -
// 1 hold the positions of the row's own queries. They are two where the chunk does not start at a
// multiple of the block.
struct RowBlocks {
  int64_t diagonal;
  int64_t end;  // 0: the row sees nothing
};

// Whole blocks in so many tokens, 0 to 2^32 - 1: a GPU divides 32 bits several times faster than 64.
constexpr int64_t blocks_in(int64_t tokens, int64_t block) {
  return static_cast<uint32_t>(tokens) / static_cast<uint32_t>(block);
}

// Of one of the sequence's rows; in 32 bits, for the same reason.
constexpr RowBlocks row_blocks(int64_t len_q, int64_t len_k, int64_t block, int64_t row) {
  const uint32_t tokens = static_cast<uint32_t>(block);
  const uint32_t begin = static_cast<uint32_t>(row) * tokens;
  const uint32_t end = std::min(begin + tokens, static_cast<uint32_t>(len_q));
  const int before = static_cast<int>(len_k - len_q);  // positions before the queries
  const int first = static_cast<int>(begin) + before, last = static_cast<int>(end) - 1 + before;
  if (last < 0) return {0, 0};
  return {blocks_in(std::max(first, 0), block), blocks_in(last, block) + 1};
}

// The last of num_seqs sequences whose first place, begin(b), is not behind `place`. One without places
// is never it, where another one follows.
template <class Place, class Begin>
constexpr int last_begun(int num_seqs, Place place, const Begin& begin) {
  int first = 0, end = num_seqs;
  while (end - first > 1) {
    const int middle = first + (end - first) / 2;
    (begin(middle) <= place ? first : end) = middle;
  }
  return first;
}
constexpr int last_begun(const int32_t* cu, int num_seqs, int index) {
  return last_begun(num_seqs, index, [cu](int b) { return cu[b]; });
}

// The sequence b with cu[b] <= index < cu[b + 1]; num_seqs where the index is not below the last
// entry.
constexpr int sequence_of(const int32_t* cu, int num_seqs, int64_t index) {
  return last_begun(cu, num_seqs + 1, static_cast<int>(index));
}

// Work in tiles of `tile` entries of one sequence each, for a grid whose size does not depend on the
// prefix sums: sequence b has the slots from cu[b] / tile + b on, which are as many as its tiles or
// one more.
struct TileSlot {
  int sequence;
  int64_t begin;  // of the tile, within its sequence
  int64_t end;    // not above begin: the slot has no tile
};

constexpr int64_t num_tile_slots(int64_t entries, int num_seqs, int tile) {
  return entries / tile + num_seqs;
}

constexpr TileSlot tile_slot(const int32_t* cu, int num_seqs, int tile, int64_t slot) {
  const int first = last_begun(num_seqs, slot, [&](int b) { return int64_t{cu[b] / tile} + b; });
  const int64_t begin = (slot - cu[first] / tile - first) * tile;
  return {first, begin, std::min<int64_t>(begin + tile, cu[first + 1] - cu[first])};
}

}  // namespace seer::kernels
