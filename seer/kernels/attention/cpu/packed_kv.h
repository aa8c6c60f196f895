#pragma once
// Keys and values of one kv head of one sequence at a time, packed for a tile engine: once per
// sequence, shared by all its rows and by the query heads of the group.

#include <omp.h>

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "seer/base/error.h"
#include "seer/kernels/attention/cpu/attention_tile.h"

namespace seer::kernels {

// Empty, or why tiles on the CPU do not take the call.
inline std::string why_not_on_cpu(const PackedAttentionParams& p, int block_k) {
  if (p.dtype == DType::f64) return "dtype is f64, want f32, f16 or bf16";
  if (block_k % 16 != 0 || block_k > kMaxBlockKeys) {
    return message("block_k is ", block_k, ", want a multiple of 16 up to ", kMaxBlockKeys);
  }
  if (p.head_dim > kMaxHeadDim) {
    return message("head_dim is ", p.head_dim, ", want at most ", kMaxHeadDim);
  }
  return "";
}

// Walks over (sequence, kv head) pairs in waves: as many pairs as fit a fixed amount of memory, one
// at least, so that short sequences are not packed one by one.
class PackedKv {
 public:
  struct Unit {
    int seq, kv_head;
    int num_blocks;      // key blocks of the sequence
    int64_t first_slot;  // where its blocks lie in this wave
  };

  // Sequences without queries are left out.
  PackedKv(const TileEngine& engine, const PackedAttentionParams& p, int block_k);

  // Goes to the next wave; false after the last.
  bool next();
  std::span<const Unit> units() const { return units_; }
  int64_t num_slots() const { return num_slots_; }
  // Reads and packs the wave's blocks, those with wanted[slot] != 0 only where `wanted` is given.
  void pack(const uint8_t* wanted);
  KvBlock block(const Unit& unit, int j) const {
    const char* k = packed_.as<char>() + (unit.first_slot + j) * slot_bytes_;
    return {k, has_values_ ? k + block_bytes_ : nullptr, j * block_k_};
  }

 private:
  int64_t capacity() const;
  int num_blocks(int seq) const;
  void pack_block(const Unit& unit, int j);

  const TileEngine& engine_;
  const PackedAttentionParams p_;
  const int block_k_;
  const bool has_values_;  // where there is an output
  int64_t block_bytes_;    // of a packed key block; a value block is as large
  int64_t slot_bytes_;     // of both
  int64_t capacity_;       // slots
  AlignedBuffer packed_;
  std::vector<Unit> units_;
  int64_t num_slots_ = 0;
  int64_t position_ = 0;  // seq * num_kv_heads + kv_head of the next unit
};

// run(unit, task, thread) for the tasks 0 .. size() - 1 of all units, in their order.
template <class UnitTasks, class Run>
void for_each_task(const std::vector<UnitTasks>& units, size_t num_threads, const Run& run) {
  std::vector<int64_t> ends;
  int64_t num_tasks = 0;
  for (const UnitTasks& unit : units) ends.push_back(num_tasks += unit.size());
#pragma omp parallel for schedule(dynamic, 1) num_threads(static_cast<int>(num_threads))
  for (int64_t task = 0; task < num_tasks; ++task) {
    const size_t u = std::ranges::upper_bound(ends, task) - ends.begin();
    run(units[u], task - (u ? ends[u - 1] : 0), omp_get_thread_num());
  }
}

}  // namespace seer::kernels
