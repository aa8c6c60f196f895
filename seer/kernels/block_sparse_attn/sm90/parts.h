#pragma once
// Lists in pieces: how many, and where their results lie. For the host, too; no CUDA.

#include <algorithm>
#include <cstdint>

#include "seer/kernels/block_sparse_attn/params.h"

namespace seer::kernels::sm90 {

constexpr int kTile = 64;  // queries of a tile, keys of a step

// Tiles of queries of one head; a listed row of 128 queries is two.
constexpr unsigned tiles_per_head(const BlockSparseAttnParams& p) {
  return static_cast<unsigned>(p.lists.num_rows) * (p.lists.block_q / kTile);
}
constexpr unsigned num_parts(const BlockSparseAttnParams& p) {
  return p.num_parts > 1 ? p.num_parts : 1;
}
// A piece of a list is not shorter than this (in blocks), or starting it costs more than it saves.
constexpr int kMinPart = 16;

// Where the pieces' results lie: outputs of all tiles [64, D], then their log-sum-exps [64].
constexpr float* partial_lse(const BlockSparseAttnParams& p) {
  return p.partials +
         int64_t{num_parts(p)} * p.num_q_heads * tiles_per_head(p) * kTile * p.head_dim;
}

// Pieces that keep all multiprocessors busy. Each computes three tiles at a time; where it has many
// in turn, the last round, only partly full, costs little, and pieces that are worked on together lie
// close to each other in the cache.
inline int choose_parts(const BlockSparseAttnParams& p, int num_sms) {
  constexpr int64_t kRounds = 12, kTilesPerSm = 3, kMaxParts = 16, kKeysOfPart = 8192;
  const int64_t tiles = p.lists.num_rows * ((p.lists.block_q + kTile - 1) / kTile) * p.num_q_heads;
  const int64_t wanted = kRounds * kTilesPerSm * num_sms;
  if (p.num_seqs == 0 || tiles == 0 || tiles >= wanted) return 1;
  const int64_t longest = (p.total_k / p.num_seqs + kKeysOfPart - 1) / kKeysOfPart;
  return static_cast<int>(
      std::clamp<int64_t>(std::min((wanted + tiles - 1) / tiles, longest), 1, kMaxParts));
}

}  // namespace seer::kernels::sm90
