#pragma once
// Attention of the newest tokens on sm_80 and later chips: mma.sync and cp.async.

#include <algorithm>
#include <string>

#include "seer/kernels/decode_attn/params.h"

namespace seer::kernels {

// Empty, or why this kernel does not take a call whose type and head size it takes.
std::string decode_attn_sm80_why_not(const DecodeAttnParams& p);

// Asynchronous on `stream`; the same bits in every run. No allocation, no synchronisation.
void decode_attn_sm80(const DecodeAttnParams& p, void* stream);

namespace decode_sm80 {

// Keys in a piece, of `keys` of all key heads together: three rounds of two thread blocks for each
// multiprocessor, so that pieces that end late are short, and what a piece costs beside its keys is
// small.
inline int choose_split(int64_t keys, int num_sms) {
  constexpr int64_t kRounds = 3, kBlocksPerSm = 2, kUnit = 64, kLeast = 128;
  const int64_t wanted = std::max<int64_t>(kRounds * kBlocksPerSm * num_sms, 1);
  return static_cast<int>(std::max(kLeast, (keys + wanted - 1) / wanted + kUnit - 1) / kUnit *
                          kUnit);
}

}  // namespace decode_sm80
}  // namespace seer::kernels
