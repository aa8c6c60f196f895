// Tasks are (map head, a few rows) pairs of one packed kv head, so that one thread alone writes a
// map row; with a map per group, the group's query heads follow each other in a task.

#include "seer/kernels/pooled_attn/cpu.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "seer/kernels/attention/checks.h"
#include "seer/kernels/attention/cpu/attention_tile.h"
#include "seer/kernels/attention/cpu/packed_kv.h"
#include "seer/kernels/simd/element.h"

namespace seer::kernels {
namespace {

using Params = PooledAttnParams;
using Unit = PackedKv::Unit;

// Per thread: a tile, the key blocks of the unit, and the largest score of each query of the tile
// in each block (O(S)).
struct Scratch {
  Scratch(const Params& p, const TileEngine& engine)
      : tile(engine, p, p.block_k),
        row_max(sizeof(float) * kTileLanes * static_cast<size_t>(p.num_blocks)),
        sums(p.block_softmax ? sizeof(float) * kTileLanes * static_cast<size_t>(p.num_blocks) : 0) {
  }
  AttentionTile tile;
  AlignedBuffer row_max, sums;
  std::vector<KvBlock> blocks;
};

// Queries of one row that lie in a tile.
struct RowLanes {
  float* map;
  int64_t begin, end;
};

// map[j] = max(map[j], x [n, lanes] over the row's lanes). Sixteen blocks at a time: a map row is
// written in whole cache lines also where each query has a row of its own.
void pool(const std::vector<RowLanes>& rows, const float* x, int64_t n, int lanes) {
  for (int64_t first = 0; first < n; first += 16) {
    const int64_t last = std::min(first + 16, n);
    for (const RowLanes& row : rows) {
      for (int64_t j = first; j < last; ++j) {
        const float* at = x + j * lanes;
        float top[16] = {};  // weights are not negative
        int64_t lane = row.begin;
        for (; lane + 16 <= row.end; lane += 16) {
          for (int i = 0; i < 16; ++i) top[i] = at[lane + i] > top[i] ? at[lane + i] : top[i];
        }
        for (; lane < row.end; ++lane) top[0] = std::max(top[0], at[lane]);
        row.map[j] = std::max(row.map[j], *std::max_element(top, top + 16));
      }
    }
  }
}

bool all_finite(const Params& p, const StridedIn& x, int64_t token, int head) {
  const int64_t begin = token * x.token_stride + head * x.head_stride;
  for (int d = 0; d < p.head_dim; ++d) {
    if (!std::isfinite(load_double(p.dtype, x.data, begin + d))) return false;
  }
  return true;
}

// A query with NaN among its scores makes every block that it sees NaN. pool() ignores NaN, so that
// what such a query does not see stays as it is.
void put_nan(const std::vector<RowLanes>& rows, const TileQuery* queries, int64_t n, int block_k) {
  for (const RowLanes& row : rows) {
    for (int64_t lane = row.begin; lane < row.end; ++lane) {
      if (!std::isnan(*queries[lane].lse)) continue;
      const int64_t seen = queries[lane].last_key / block_k + 1;
      std::fill_n(row.map, std::min(seen, n), NAN);
    }
  }
}

void normalise_row(float* map, int64_t n) {
  double sum = 0;
  for (int64_t j = 0; j < n; ++j) sum += map[j];
  if (!(sum > 0)) return;  // the row sees nothing, or holds NaN
  for (int64_t j = 0; j < n; ++j) map[j] = static_cast<float>(map[j] / sum);
}

// The first key of a kv head that is not finite, counted from its sequence's start; behind it scores may be NaN.
int32_t first_not_finite(const Params& p, const Unit& unit) {
  const auto is_finite = [&](int64_t token) { return all_finite(p, p.k, token, unit.kv_head); };
  int32_t j = 0;
  while (j < p.len_k(unit.seq) && is_finite(p.key_token(unit.seq, j))) ++j;
  return j;
}

// The work on one packed kv head.
class UnitTasks {
 public:
  UnitTasks(const Params& p, const Unit& unit) : p_(p), unit_(unit) {
    maps_per_unit_ = p.num_map_heads / p.num_kv_heads;
    heads_per_map_ = p.num_q_heads / p.num_map_heads;
    num_rows_ = p.cu_rows[unit.seq + 1] - p.cu_rows[unit.seq];
    rows_per_task_ = std::max(1, kTileLanes / p.block_q);
    num_groups_ = (num_rows_ + rows_per_task_ - 1) / rows_per_task_;
    if (p.block_softmax) first_not_finite_ = first_not_finite(p, unit);
  }

  int64_t size() const { return num_groups_ * maps_per_unit_; }
  // Late rows come first: they see the most keys.
  void run(int64_t task, const PackedKv& kv, Scratch& scratch) const;

 private:
  // Queries `begin` .. `end` - 1 of one head.
  void attend(int64_t head, int64_t begin, int64_t end, float* first_map, int64_t first_row,
              const PackedKv& kv, Scratch& scratch) const;

  const Params& p_;
  Unit unit_;
  int64_t maps_per_unit_, heads_per_map_, num_rows_, rows_per_task_, num_groups_;
  int32_t first_not_finite_ = 0;
};

void UnitTasks::run(int64_t task, const PackedKv& kv, Scratch& scratch) const {
  const int64_t map_head = unit_.kv_head * maps_per_unit_ + task % maps_per_unit_;
  const int64_t first_row = (num_groups_ - 1 - task / maps_per_unit_) * rows_per_task_;
  const int64_t end_row = std::min(first_row + rows_per_task_, num_rows_);
  const int64_t len_q = p_.len_q(unit_.seq);
  const int64_t end_query = std::min(end_row * p_.block_q, len_q);
  float* map =
      p_.map + (map_head * p_.num_rows + p_.cu_rows[unit_.seq] + first_row) * p_.num_blocks;
  std::fill_n(map, (end_row - first_row) * p_.num_blocks, 0.f);
  for (int64_t h = 0; h < heads_per_map_; ++h) {
    for (int64_t at = first_row * p_.block_q; at < end_query; at += kTileLanes) {
      attend(map_head * heads_per_map_ + h, at, std::min<int64_t>(at + kTileLanes, end_query), map,
             first_row, kv, scratch);
    }
  }
  for (int64_t row = first_row; row < end_row && p_.normalise; ++row) {
    normalise_row(map + (row - first_row) * p_.num_blocks, unit_.num_blocks);
  }
}

void UnitTasks::attend(int64_t head, int64_t begin, int64_t end, float* first_map,
                       int64_t first_row, const PackedKv& kv, Scratch& scratch) const {
  TileQuery queries[kTileLanes];
  for (int64_t i = begin; i < end; ++i) queries[i - begin] = tile_query(p_, unit_.seq, head, i);
  AttentionTile& tile = scratch.tile;
  tile.begin({queries, static_cast<size_t>(end - begin)});
  scratch.blocks.clear();
  for (int j = 0; j < unit_.num_blocks && j * p_.block_k <= tile.last_key(); ++j) {
    scratch.blocks.push_back(kv.block(unit_, j));
  }
  float* row_max = scratch.row_max.as<float>();
  const int64_t n = static_cast<int64_t>(scratch.blocks.size());
  if (p_.block_softmax) {
    bool is_finite = tile.last_key() < first_not_finite_;
    for (int64_t i = begin; i < end && is_finite; ++i) {
      is_finite = all_finite(p_, p_.q, p_.cu_q[unit_.seq] + i, static_cast<int>(head));
    }
    // The sum over keys is NaN where a score is.
    is_finite ? tile.add_maxima(scratch.blocks, row_max) : tile.add(scratch.blocks, row_max);
    tile.sum_maxima(n, row_max, scratch.sums.as<float>(), kSmallestBlockWeight);
  } else {
    tile.add(scratch.blocks, row_max);
  }
  tile.end();
  tile.weights(n, row_max);
  std::vector<RowLanes> rows;
  for (int64_t row = begin / p_.block_q; row * p_.block_q < end; ++row) {
    rows.push_back({first_map + (row - first_row) * p_.num_blocks,
                    std::max(row * p_.block_q, begin) - begin,
                    std::min((row + 1) * p_.block_q, end) - begin});
  }
  pool(rows, row_max, n, tile.lanes());
  put_nan(rows, queries, n, p_.block_k);
}

}  // namespace

std::string pooled_attn_cpu_why_not(const Params& p) {
  return why_not_on_cpu(p, p.block_k);
}

void pooled_attn_cpu(const Params& p, const TileEngine& engine) {
  check_sequences("pooled_attn", p, p.cu_rows, p.num_rows, p.block_q);
  for (int b = 0; b < p.num_seqs; ++b) {
    SEER_CHECK(p.len_k(b) <= p.num_blocks * p.block_k, "pooled_attn: sequence ", b, " has ",
               p.len_k(b), " keys, more than the map's ", p.num_blocks, " blocks of ", p.block_k,
               " hold");
  }
  PackedKv kv(engine, p, p.block_k);
  std::vector<Scratch> scratch;
  const int64_t num_threads =
      std::min<int64_t>(omp_get_max_threads(), p.num_rows * p.num_map_heads);
  for (int64_t i = 0; i < num_threads; ++i) scratch.emplace_back(p, engine);
  while (kv.next()) {
    kv.pack(nullptr);
    std::vector<UnitTasks> units;
    for (const Unit& unit : kv.units()) units.emplace_back(p, unit);
    for_each_task(units, scratch.size(), [&](const UnitTasks& unit, int64_t task, int thread) {
      unit.run(task, kv, scratch[thread]);
    });
  }
}

}  // namespace seer::kernels
