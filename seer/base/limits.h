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

// Settings of the program. Numbers of blocks and tokens fit an int32 everywhere.
inline constexpr int64_t kTokens = int64_t{1} << 30;      // of a sequence; of a list, in blocks
inline constexpr int64_t kStepTokens = int64_t{1} << 40;  // of all sequences of a step
inline constexpr int64_t kSequences = int64_t{1} << 20;   // of a step; windows, documents
inline constexpr int64_t kSteps = 1'000'000'000;          // of a run
inline constexpr int kThreads = 1024;
inline constexpr int kHeartbeatSeconds = 24 * 3600;
inline constexpr int kHeads = 4096, kHeadDim = 4096, kLayers = 1024, kHidden = 1 << 20;
inline constexpr int kGateDim = 1024;

}  // namespace seer::limits
