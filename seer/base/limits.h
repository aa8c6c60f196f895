#pragma once
// Limits on what is read from outside, for all readers: far beyond what real files have, and small
// enough that a file made to hurt costs seconds and some hundred megabytes.

#include <cstddef>
#include <cstdint>

namespace seer::limits {

// JSON: config.json, tokenizer.json, a run's or gate's files, --config, a line of a text.
inline constexpr int kJsonDepth = 256;                   // lists in lists
inline constexpr size_t kJsonBytes = size_t{256} << 20;  // of a file
inline constexpr size_t kMessageLength = 2000;           // bytes of an error on the terminal

}  // namespace seer::limits
