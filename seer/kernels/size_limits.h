#pragma once
// Sizes up to which every op computes without overflow. Parameters and offsets within a few rows are
// 32-bit numbers: i + len_k - len_q, or 64 rows of all heads. No memory holds what is refused.

#include <cstdint>

#include "seer/base/error.h"

namespace seer::kernels {

inline constexpr int64_t kMostTokens = int64_t{1} << 28;         // of all sequences of a call
inline constexpr int64_t kMostBlocks = kMostTokens / 16;         // key blocks of a sequence
inline constexpr int64_t kMostHeads = 65535;                     // an axis of a GPU's grid
inline constexpr int64_t kMostFeatures = int64_t{1} << 14;       // of a head
inline constexpr int64_t kMostTokenFeatures = int64_t{1} << 24;  // of all heads of a token or block

inline void check_most(const char* op, const char* what, int64_t count, int64_t most) {
  SEER_CHECK(count <= most, op, ": ", count, " ", what, ", want at most ", most);
}

}  // namespace seer::kernels
