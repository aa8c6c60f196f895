#pragma once
// Verticals and slashes of MInference (arXiv 2407.02490, section 3.2): keys that all queries look at, and
// distances that they look back, estimated from the last queries of a prompt. FlexPrefill has them, too.

#include "seer/models/methods/block_scores.h"

namespace seer::models {

inline constexpr int64_t kLastQueries = 64;

// Of a sequence's last queries (kLastQueries, or all), what all of them give to a key and to a distance,
// query less key: sums of attention weights.
struct Lines {
  at::Tensor vertical, slash;  // [Hq, s] f32
};
Lines last_lines(const OneSequence& sequence, double scale);

// The largest value of all verticals and slashes that a block of a row has a visible pair on,
// [Hq, rows, blocks]; values are 0 or more.
at::Tensor largest_of_blocks(const Lines& lines, const OneSequence& sequence, int64_t block);

// Error: the input is a chunk that is not the end of its prompt. `method`: whose name it has.
void check_has_last_queries(const AttentionInput& input, const char* method);

}  // namespace seer::models
