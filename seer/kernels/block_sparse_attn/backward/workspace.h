#pragma once
// What the GPU kernels of the backward hand to each other, in the caller's memory.

#include <cstdint>
#include <type_traits>

#include "seer/kernels/block_sparse_attn/backward/params.h"
#include "seer/kernels/row_blocks.h"

namespace seer::kernels::backward {

constexpr int kTile = 64;  // queries of a row tile, keys of a column tile

// A column tile is worked on in pieces where many rows list it (the first tokens of a text, say).
struct Part {
  int32_t column;  // kv_head * column_tiles + column tile
  int32_t index, count;
};
struct Split {
  int32_t column;
  int32_t first_part, num_parts;
};

struct Counters {
  unsigned long long total_steps;  // of all column tiles: pairs of a row tile and a column tile
  int32_t num_parts, num_splits;
  int32_t next_row, next_column;  // dealers
};

struct Workspace {
  Counters* counters;
  float* stats;     // [Hq, row tiles, 2, 64]  log-sum-exp in units of log2, then delta; +inf and 0
                    //                         where a query does not exist or sees no key
  uint32_t* bits;   // [L, columns, words]     bit r: row tile r lists the column
  int32_t* steps;   // [Hk, column tiles]
  Part* parts;      // [most_parts]
  Split* splits;    // [most_parts]
  float* partials;  // [most_parts, 2, 64, D]  gradients of k (without scale) and v
  int64_t row_tiles, columns, words, column_tiles;
  int most_parts;
  int shares;  // a part has at most 1 / shares of all steps
  int64_t bytes;
};

// Cuts the workspace up. With a null workspace only sizes mean something.
inline Workspace layout(const BlockSparseAttnBackwardParams& p, int num_sms) {
  Workspace w{};
  auto* const base = static_cast<uint8_t*>(p.workspace);
  const auto take = [&](auto*& pointer, int64_t count) {
    pointer = reinterpret_cast<std::remove_reference_t<decltype(pointer)>>(base + w.bytes);
    w.bytes += (count * static_cast<int64_t>(sizeof *pointer) + 1023) / 1024 * 1024;
  };
  w.row_tiles = p.lists.num_rows * (p.lists.block_q / kTile);
  // Columns of all sequences in the slots of row_blocks.h.
  w.columns = num_tile_slots(p.total_k, p.num_seqs, p.lists.block_k);
  w.column_tiles = num_tile_slots(p.total_k, p.num_seqs, kTile);
  w.words = (w.row_tiles + 255) / 256 * 8;
  // Eight parts for each multiprocessor end together well enough; whatever the lists are, twice as
  // many are the most.
  w.shares = num_sms * 8;
  w.most_parts = 2 * w.shares;
  take(w.counters, 1);
  take(w.stats, p.num_q_heads * w.row_tiles * 2 * kTile);
  take(w.bits, p.lists.num_heads * w.columns * w.words);
  take(w.steps, p.num_kv_heads * w.column_tiles);
  take(w.parts, w.most_parts);
  take(w.splits, w.most_parts);
  take(w.partials, int64_t{w.most_parts} * 2 * kTile * p.head_dim);
  return w;
}

}  // namespace seer::kernels::backward
