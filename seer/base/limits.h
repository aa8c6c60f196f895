#pragma once
// Limits on what is read from outside, for all readers: far beyond what real files have, and small
// enough that a file made to hurt costs seconds and some hundred megabytes.

#include <algorithm>
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

// Texts. One plain file is one text, and has its size on the disk; a packed one may unpack to anything.
inline constexpr size_t kTextBytes = size_t{1} << 31;    // of a text
inline constexpr size_t kLineBytes = size_t{256} << 20;  // of a document among others
inline constexpr size_t kBlankBytes = size_t{64} << 20;  // of blanks between two documents
// Bytes that may be kept in memory of a file that is packed in so many.
constexpr size_t unpacked_bytes(uint64_t packed) {
  return static_cast<size_t>(std::clamp<uint64_t>(32 * packed, uint64_t{64} << 20, kTextBytes));
}
// Whether more than half of a file's documents are broken is looked at once this many and this many
// bytes have been read, or the larger number of bytes.
inline constexpr int64_t kSampleDocuments = 1000;
inline constexpr int64_t kSampleBytes = 16 << 20;
inline constexpr int64_t kLargeSampleBytes = 1 << 30;

// Models' and gates' config.json; weights' headers.
inline constexpr int64_t kConfigSize = 1 << 24;              // hidden, intermediate and head sizes
inline constexpr int64_t kConfigCount = 1 << 16;             // layers and heads
inline constexpr int64_t kVocabulary = 1 << 28;              // tokens
inline constexpr int64_t kPositions = int64_t{1} << 32;      // of a context
inline constexpr double kRopeNumber = 1e12;                  // theta, factors
inline constexpr uint64_t kSafetensorsHeader = 100'000'000;  // bytes: the format's own limit

// tokenizer.json. Real chains have up to ten steps, and texts grow to three times their bytes.
inline constexpr int64_t kTokenId = (int64_t{1} << 24) - 1;  // ids beyond are taken as damage
inline constexpr int64_t kStripped = 1 << 20;                // characters that a Strip takes off
inline constexpr size_t kTokenizerSteps = 64;         // of one chain (normalizers, decoders ...)
inline constexpr int64_t kByteLevelSteps = 4;         // of a chain of pre-tokenizers
inline constexpr size_t kTokenizerSpecials = 1024;    // tokens that a post-processor adds to a text
inline constexpr size_t kTextGrowth = 64;             // bytes that steps may make of one byte ...
inline constexpr size_t kTextGrowthFree = 1 << 10;    // ... and of none
inline constexpr size_t kAddedTokenBytes = 1024;      // of one added token
inline constexpr size_t kAddedTokensBytes = 4 << 20;  // of all

// Rendering a chat template: real ones take a tenth of a second.
inline constexpr int kTemplateSeconds = 10;
inline constexpr size_t kTemplateMemory = size_t{1} << 30;
inline constexpr size_t kTemplateBytes = size_t{64} << 20;  // of the prompt that it makes

// A prompt of `seer generate`: this many tokens, or this many times the model's context if that is more.
inline constexpr int64_t kPromptTokens = 131072;
inline constexpr int64_t kPromptContexts = 8;

}  // namespace seer::limits
