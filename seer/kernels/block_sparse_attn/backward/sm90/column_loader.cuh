#pragma once
// A loader warp of columns.cuh: columns, and the rows that list them, for one consumer warpgroup.

#include "seer/kernels/block_sparse_attn/backward/sm90/tiles.cuh"

namespace seer::kernels::sm90::backward {

struct ColumnWork {
  ColumnTile tile;
  int part;  // where its sums go; -1: to the gradients themselves; kNoColumn: there is no further one
};
constexpr int kNoColumn = -2;
constexpr int kNoQuery = -1;  // in the place of a row's first query: the column's rows are over

template <class Element_, int kHeadDim_>
struct ColumnsConfig : TileConfig<Element_, kHeadDim_> {
  using Base = TileConfig<Element_, kHeadDim_>;
  static constexpr int kConsumers = 2;
  static constexpr int kSlots = kHeadDim_ == 64 ? 4 : 2;
  static constexpr int kThreads = kWarpgroup * (1 + kConsumers);
  static constexpr int kLoaderRegisters = 24, kConsumerRegisters = 240;
  struct Slot {
    alignas(1024) uint8_t query[Base::kTileBytes];
    alignas(1024) uint8_t grad[Base::kTileBytes];
  };
  struct Channel {
    alignas(1024) uint8_t key[Base::kTileBytes];
    alignas(1024) uint8_t value[Base::kTileBytes];
    Slot slot[kSlots];
    float stats[kSlots][2 * kTile];
  };
  struct Signals {
    uint64_t full[kSlots], empty[kSlots], column_full, column_empty;
    int query0[kSlots];
    ColumnWork work[2];  // the one being computed, the next
  };
  struct Smem {
    Channel channel[kConsumers];
    Signals signals[kConsumers];
  };
  static_assert(sizeof(Smem) <= 227 * 1024, "a thread block may have 227 KiB");
};

// Hands the rows of one column to a consumer. Whole warps.
template <class Config>
class RowFeeder {
 public:
  __device__ __forceinline__ RowFeeder(const BackwardMaps& maps, const Params& p,
                                       const Workspace& w, typename Config::Smem& smem, int c)
      : maps_(maps), p_(p), w_(w), signals_(smem.signals[c]), channel_(smem.channel[c]) {}

  // Steps `first` to `last` - 1 of the column, then the sign that it is over.
  __device__ __forceinline__ void feed(const ColumnTile& tile, int first, int last) {
    const int lane = threadIdx.x % 32;
    int step = 0;
#pragma unroll 1
    for (int h = 0; h < tile.num_heads; ++h) {
      // 32 words of the column at a time, one in each lane.
#pragma unroll 1
      for (int word0 = tile.first_row / 32; word0 * 32 < tile.last_row; word0 += 32) {
        uint32_t rows = 0;
        if ((word0 + lane) * 32 < tile.last_row) {
          rows = tile.bits(p_, w_, h)[word0 + lane] & tile.rows_of_word(word0 + lane);
        }
        if (step < first) {
          const int all = __reduce_add_sync(kAllLanes, __popc(rows));
          if (step + all <= first) {
            step += all;
            continue;
          }
        }
#pragma unroll 1
        for (uint32_t lanes; (lanes = __ballot_sync(kAllLanes, rows != 0)) && step < last; ++step) {
          const int from = __ffs(lanes) - 1;
          const int row = (word0 + from) * 32 + __shfl_sync(kAllLanes, __ffs(rows) - 1, from);
          if (lane == from) rows &= rows - 1;
          if (step >= first) push(tile, tile.kv_head * tile.num_heads + h, row);
        }
      }
    }
    wait_empty();
    if (lane == 0) {
      signals_.query0[place_.slot] = kNoQuery;
      ptx::mbarrier_arrive(ptx::smem_address(&signals_.full[place_.slot]));
    }
    place_.next();
  }

 private:
  const BackwardMaps& maps_;
  const Params& p_;
  const Workspace& w_;
  typename Config::Signals& signals_;
  typename Config::Channel& channel_;
  Place<Config::kSlots> place_;

  __device__ __forceinline__ void wait_empty() const {
    ptx::mbarrier_wait(ptx::smem_address(&signals_.empty[place_.slot]), place_.parity ^ 1);
  }
  __device__ __forceinline__ void push(const ColumnTile& tile, int head, int row_tile) {
    const int query0 = (row_tile - tile.first_row) * kTile;
    // A block of 128 may have halves without a query, or where no query sees a key.
    if (query0 >= tile.q_len || query0 + kTile - 1 + tile.offset < tile.k_first) return;
    wait_empty();
    if (threadIdx.x % 32 == 0) {
      const int slot = place_.slot;
      uint64_t* const full = &signals_.full[slot];
      signals_.query0[slot] = query0;
      ptx::mbarrier_expect_tx(ptx::smem_address(full), 2 * Config::kTileBytes + kStatsBytes);
      Config::load(channel_.slot[slot].query, &maps_.q, full, head, tile.q_token + query0,
                   ptx::CacheHint::kNormal);
      Config::load(channel_.slot[slot].grad, &maps_.grad_o, full, head, tile.q_token + query0,
                   ptx::CacheHint::kNormal);
      ptx::bulk_load(ptx::smem_address(channel_.stats[slot]),
                     w_.stats + (head * w_.row_tiles + row_tile) * 2 * kTile, kStatsBytes,
                     ptx::smem_address(full));
    }
    place_.next();
  }
};

template <class Config>
__device__ __forceinline__ void load_columns(const BackwardMaps& maps, const Params& p,
                                             const Workspace& w, typename Config::Smem& smem,
                                             int c) {
  auto& signals = smem.signals[c];
  auto& channel = smem.channel[c];
  const int lane = threadIdx.x % 32;
  const int num_parts = w.counters->num_parts, most = most_steps(p, w);
  RowFeeder<Config> feeder(maps, p, w, smem, c);
  attention::Dealer<true> dealer(
      &w.counters->next_column, blockIdx.x + gridDim.x * c, gridDim.x * Config::kConsumers,
      num_parts + static_cast<unsigned>(p.num_kv_heads * w.column_tiles));
  uint32_t parity = 1;
  for (; !dealer.is_over(); dealer.next()) {
    int unit = static_cast<int>(dealer.unit()), part = -1, first = 0, count;
    if (unit < num_parts) {
      part = unit;
      const Part of = w.parts[unit];
      unit = of.column;
      const int size = (w.steps[unit] + of.count - 1) / of.count;
      first = of.index * size;
      count = size;
    } else {
      unit -= num_parts;
      count = w.steps[unit];
      if (count > most) continue;  // its parts are units of their own
    }
    auto& work = signals.work[parity ^ 1];
    __syncwarp();  // no lane reads of a column that was left out
    if (lane == 0) work = {describe_column(p, w, unit), part};
    __syncwarp();
    const ColumnTile& tile = work.tile;
    if (tile.k_left <= 0) continue;
    if (count == 0) {
      store_zeros<Config>(p.grad_k, tile.k_token, tile.kv_head, tile.k_left);
      store_zeros<Config>(p.grad_v, tile.k_token, tile.kv_head, tile.k_left);
      continue;
    }
    ptx::mbarrier_wait(ptx::smem_address(&signals.column_empty), parity);
    parity ^= 1;
    if (lane == 0) {
      ptx::mbarrier_expect_tx(ptx::smem_address(&signals.column_full), 2 * Config::kTileBytes);
      Config::load(channel.key, &maps.k, &signals.column_full, tile.kv_head, tile.k_token,
                   ptx::CacheHint::kEvictFirst);
      Config::load(channel.value, &maps.v, &signals.column_full, tile.kv_head, tile.k_token,
                   ptx::CacheHint::kEvictFirst);
    }
    feeder.feed(tile, first, first + count);
  }
  ptx::mbarrier_wait(ptx::smem_address(&signals.column_empty), parity);
  if (lane == 0) {
    signals.work[parity ^ 1].part = kNoColumn;
    ptx::mbarrier_arrive(ptx::smem_address(&signals.column_full));
  }
}

}  // namespace seer::kernels::sm90::backward
