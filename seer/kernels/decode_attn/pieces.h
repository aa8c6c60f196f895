#pragma once
// Pieces of a decode step's keys: which sequence a piece belongs to and which keys it has. constexpr:
// CUDA kernels call these functions, too.

#include <algorithm>
#include <cstdint>

#include "seer/kernels/decode_attn/params.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels {

// Keys from 0 to this one, itself not included, are behind every query's window.
constexpr int64_t window_begin(const DecodeAttnParams& p, int64_t len_k) {
  return p.window > 0 ? std::max<int64_t>(0, len_k - p.num_queries + 1 - p.window) : 0;
}

// A sequence has a slot for each of its pieces, and perhaps some more: slots begin where the prefix
// sums alone say it. With a window every sequence has as many.
constexpr int64_t slots_of_window(const DecodeAttnParams& p) {
  return (int64_t{p.window} + p.num_queries - 1 + p.split - 1) / p.split;
}
constexpr int64_t num_slots(const DecodeAttnParams& p) {
  return p.window > 0 ? p.num_seqs * std::min(slots_of_window(p), p.total_k / p.split + 1)
                      : p.total_k / p.split + p.num_seqs;
}
constexpr int64_t first_slot_of(const DecodeAttnParams& p, int seq) {
  return p.window > 0 ? num_slots(p) / p.num_seqs * seq : p.key_token(seq, 0) / p.split + seq;
}

// The pieces of a sequence.
constexpr int64_t num_pieces_of(const DecodeAttnParams& p, int64_t len_k) {
  return (len_k - window_begin(p, len_k) + p.split - 1) / p.split;
}

struct Piece {
  int seq;
  int64_t begin, end;  // keys, counted from the start of the sequence; none where not begin < end
};

constexpr Piece piece_of(const DecodeAttnParams& p, int64_t slot) {
  const int seq = last_begun(p.num_seqs, slot, [&](int b) { return first_slot_of(p, b); });
  const int64_t len_k = p.len_k(seq);
  const int64_t begin = window_begin(p, len_k) + (slot - first_slot_of(p, seq)) * p.split;
  return {seq, begin, std::min<int64_t>(begin + p.split, len_k)};
}

// Keys `begin` .. `end` - 1 are what query i of a sequence of len_k keys sees.
struct Visible {
  int64_t begin, end;
};
constexpr Visible visible_to(const DecodeAttnParams& p, int64_t len_k, int query) {
  const int64_t end = std::max<int64_t>(0, query + 1 + len_k - p.num_queries);
  return {p.window > 0 ? std::max<int64_t>(0, end - p.window) : 0, end};
}

}  // namespace seer::kernels
