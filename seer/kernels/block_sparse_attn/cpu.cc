// Tasks are (list head, row) pairs of one packed kv head; a task's queries, of all heads that share
// the list, fill the lanes of tiles.

#include "seer/kernels/block_sparse_attn/cpu.h"

#include <algorithm>
#include <vector>

#include "seer/kernels/attention/checks.h"
#include "seer/kernels/attention/cpu/attention_tile.h"
#include "seer/kernels/attention/cpu/packed_kv.h"
#include "seer/kernels/block_sparse_attn/lists.h"

namespace seer::kernels {
namespace {

using Params = BlockSparseAttnParams;
using Unit = PackedKv::Unit;

// Per thread.
struct Scratch {
  AttentionTile tile;
  std::vector<KvBlock> blocks;
};

// The work on one packed kv head.
class UnitTasks {
 public:
  UnitTasks(const Params& p, const Unit& unit) : p_(p), unit_(unit) {
    const BlockList& lists = p.lists;
    lists_per_unit_ = lists.num_heads / p.num_kv_heads;
    heads_per_list_ = p.num_q_heads / lists.num_heads;
    first_row_ = lists.cu_rows[unit.seq];
    num_rows_ = lists.cu_rows[unit.seq + 1] - first_row_;
  }

  int64_t size() const { return num_rows_ * lists_per_unit_; }
  // Marks the blocks that any list names. Error: a list names a block that does not exist, or is
  // not ascending.
  void mark_listed(uint8_t* wanted) const;
  // Late rows come first: they have the longest lists.
  void run(int64_t task, const PackedKv& kv, Scratch& scratch) const;

 private:
  // Where the list of a (list head of the unit, row) pair is described.
  int64_t entry(int64_t list_head, int64_t row) const {
    return (unit_.kv_head * lists_per_unit_ + list_head) * p_.lists.num_rows + first_row_ + row;
  }
  // Query `index` of a task: the row's queries of the first head that shares the list, then the
  // next head's.
  TileQuery query(int64_t list_head, int64_t index, int64_t row_begin, int64_t row_len) const {
    const int64_t first_head = (unit_.kv_head * lists_per_unit_ + list_head) * heads_per_list_;
    return tile_query(p_, unit_.seq, first_head + index / row_len, row_begin + index % row_len);
  }

  const Params& p_;
  Unit unit_;
  int64_t lists_per_unit_, heads_per_list_, first_row_, num_rows_;
};

void UnitTasks::mark_listed(uint8_t* wanted) const {
  const BlockList& lists = p_.lists;
  for (int64_t head = 0; head < lists_per_unit_; ++head) {
    for (int64_t row = 0; row < num_rows_; ++row) {
      const int64_t at = entry(head, row);
      const int32_t* list = lists.list + lists.begin[at];
      check_list("block_sparse_attn", list, lists.count[at], unit_.num_blocks, row, unit_.seq);
      for (int n = 0; n < lists.count[at]; ++n) wanted[unit_.first_slot + list[n]] = 1;
    }
  }
}

void UnitTasks::run(int64_t task, const PackedKv& kv, Scratch& scratch) const {
  auto& [tile, blocks] = scratch;
  const BlockList& lists = p_.lists;
  const int64_t list_head = task % lists_per_unit_, row = num_rows_ - 1 - task / lists_per_unit_;
  const int64_t row_begin = row * lists.block_q;
  const int64_t len_q = p_.len_q(unit_.seq);
  const int64_t row_len = std::min<int64_t>(lists.block_q, len_q - row_begin);
  const int64_t at = entry(list_head, row), num_queries = row_len * heads_per_list_;
  TileQuery queries[kTileLanes];
  for (int64_t first = 0; first < num_queries; first += kTileLanes) {
    const int64_t n = std::min<int64_t>(kTileLanes, num_queries - first);
    for (int64_t i = 0; i < n; ++i) queries[i] = query(list_head, first + i, row_begin, row_len);
    tile.begin({queries, static_cast<size_t>(n)});
    blocks.clear();
    for (int i = 0; i < lists.count[at]; ++i) {
      const KvBlock block = kv.block(unit_, lists.list[lists.begin[at] + i]);
      if (block.first_key > tile.last_key()) break;  // ascending: no query sees the others either
      blocks.push_back(block);
    }
    tile.add(blocks);
    tile.end();
  }
}

}  // namespace

std::string block_sparse_attn_cpu_why_not(const Params& p) {
  return why_not_on_cpu(p, p.lists.block_k);
}

void block_sparse_attn_cpu(const Params& p, const TileEngine& engine) {
  check_sequences("block_sparse_attn", p, p.lists.cu_rows, p.lists.num_rows, p.lists.block_q);
  PackedKv kv(engine, p, p.lists.block_k);
  std::vector<Scratch> scratch;
  const int64_t num_threads =
      std::min<int64_t>(omp_get_max_threads(), p.lists.num_rows * p.lists.num_heads);
  for (int64_t i = 0; i < num_threads; ++i) {
    scratch.push_back({AttentionTile(engine, p, p.lists.block_k), {}});
  }
  while (kv.next()) {  // packs what is listed, then runs all tasks
    std::vector<UnitTasks> units;
    std::vector<uint8_t> wanted(static_cast<size_t>(kv.num_slots()), 0);
    for (const Unit& unit : kv.units()) {
      units.emplace_back(p, unit);
      units.back().mark_listed(wanted.data());
    }
    kv.pack(wanted.data());
    for_each_task(units, scratch.size(), [&](const UnitTasks& unit, int64_t task, int thread) {
      unit.run(task, kv, scratch[thread]);
    });
  }
}

}  // namespace seer::kernels
