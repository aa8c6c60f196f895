#pragma once
// The ring of tiles between a loader warp and its consumer warpgroup.

#include "seer/kernels/block_sparse_attn/sm90/config.h"

namespace seer::kernels::sm90 {

// One side's place in a ring. Both sides go through the slots in the same order.
template <class Config>
class Ring {
 public:
  // Of consumer `w`.
  __device__ __forceinline__ Ring(typename Config::Smem& smem, int w)
      : signals_(smem.signals[w]), channel_(smem.channel[w]) {}

  __device__ __forceinline__ uint64_t* full() const { return &signals_.full[slot_]; }
  __device__ __forceinline__ uint64_t* empty() const { return &signals_.empty[slot_]; }
  __device__ __forceinline__ int& key0() const { return signals_.key0[slot_]; }
  __device__ __forceinline__ uint8_t* tile() const { return channel_.tile[slot_]; }
  __device__ __forceinline__ void wait_full() const {
    ptx::mbarrier_wait(ptx::smem_address(full()), parity_);
  }
  __device__ __forceinline__ void wait_empty() const {
    ptx::mbarrier_wait(ptx::smem_address(empty()), parity_ ^ 1);
  }
  // For each warp of the consumer: it has read the tile. `when`: a zero that has to be known first.
  __device__ __forceinline__ void release(uint32_t when = 0) const {
    __syncwarp();  // all lanes have read it
    if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(ptx::smem_address(empty()) + when);
  }
  __device__ __forceinline__ void next() {
    if (++slot_ == Config::kSlots) slot_ = 0, parity_ ^= 1;
  }

 private:
  typename Config::Signals& signals_;
  typename Config::Channel& channel_;
  uint32_t slot_ = 0, parity_ = 0;
};

// Starts the copy of a tile that alone completes `full`. One thread.
template <class Config>
__device__ __forceinline__ void load_tile(uint8_t* tile, const CUtensorMap* map, uint64_t* full,
                                          int head, int token, ptx::CacheHint hint) {
  ptx::mbarrier_expect_tx(ptx::smem_address(full), Config::kTileBytes);
  attention::load_tile<kTile, Config::kColumns>(tile, map, full, head, token, hint);
}

// The next tile of a ring, when there is room. For a whole warp. key0: its first key, for the consumer.
template <class Config>
__device__ __forceinline__ void push(Ring<Config>& ring, const CUtensorMap* map, int head,
                                     int token, int key0, ptx::CacheHint hint) {
  ring.wait_empty();
  if (threadIdx.x % 32 == 0) {
    ring.key0() = key0;
    load_tile<Config>(ring.tile(), map, ring.full(), head, token, hint);
  }
  ring.next();
}

// A slot without a tile.
template <class Config>
__device__ __forceinline__ void push_nothing(Ring<Config>& ring) {
  ring.wait_empty();
  if (threadIdx.x % 32 == 0) ptx::mbarrier_arrive(ptx::smem_address(ring.full()));
  ring.next();
}

}  // namespace seer::kernels::sm90
