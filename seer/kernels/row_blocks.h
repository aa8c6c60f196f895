#pragma once
// Which key blocks the queries of a row may see, and where a row belongs.

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

inline RowBlocks row_blocks(int64_t len_q, int64_t len_k, int64_t block, int64_t row) {
  const int64_t first = row * block + len_k - len_q;
  const int64_t last = std::min((row + 1) * block, len_q) - 1 + len_k - len_q;
  if (last < 0) return {0, 0};
  return {std::max<int64_t>(first, 0) / block, last / block + 1};
}

// The sequence b with cu[b] <= index < cu[b + 1].
inline int sequence_of(const int32_t* cu, int num_seqs, int64_t index) {
  return static_cast<int>(std::upper_bound(cu, cu + num_seqs + 1, index) - cu) - 1;
}

}  // namespace seer::kernels
