#pragma once
// Keys and values of one kv head of one sequence at a time, packed for a tile engine: once per
// sequence, shared by all its rows and by the query heads of the group.

#include <cstdint>
#include <span>
#include <vector>

#include "seer/base/dtype.h"
#include "seer/kernels/simd/aligned_buffer.h"
#include "seer/kernels/simd/attention_tile.h"
#include "seer/kernels/simd/tile_engine.h"

namespace seer::kernels {

struct KvSource {
  const void* k;  // [S, Hk, D]
  const void* v;  // [S, Hk, D]
  int64_t k_token_stride, k_head_stride;
  int64_t v_token_stride, v_head_stride;
  const int32_t* cu_q;  // [B + 1]  sequences without queries are left out
  const int32_t* cu_k;  // [B + 1]
  int num_seqs, num_kv_heads, head_dim, block_k;
  DType dtype;
};

// Walks over (sequence, kv head) pairs in waves: as many pairs as fit a fixed amount of memory, one
// at least, so that short sequences are not packed one by one.
class PackedKv {
 public:
  struct Unit {
    int seq, kv_head;
    int num_blocks;      // key blocks of the sequence
    int64_t first_slot;  // where its blocks lie in this wave
  };

  PackedKv(const TileEngine& engine, const KvSource& source);

  // Goes to the next wave; false after the last.
  bool next();
  std::span<const Unit> units() const { return units_; }
  int64_t num_slots() const { return num_slots_; }
  // Reads and packs the wave's blocks, those with wanted[slot] != 0 only where `wanted` is given.
  void pack(const uint8_t* wanted);
  KvBlock block(const Unit& unit, int j) const {
    const char* k = packed_.as<char>() + (unit.first_slot + j) * 2 * block_bytes_;
    return {k, k + block_bytes_, j * source_.block_k};
  }

 private:
  int num_blocks(int seq) const;
  void pack_block(const Unit& unit, int j);

  const TileEngine& engine_;
  KvSource source_;
  int64_t block_bytes_;  // of a packed key block; a value block is as large
  int64_t capacity_;     // slots
  AlignedBuffer packed_;
  std::vector<Unit> units_;
  int64_t num_slots_ = 0;
  int64_t position_ = 0;  // seq * num_kv_heads + kv_head of the next unit
};

}  // namespace seer::kernels
