#pragma once
// Units of work dealt out in order, each to the first claimant that is free, so that all end together.

#include <cstdint>

namespace seer::kernels::attention {

constexpr uint32_t kAllLanes = 0xffffffff;

// kWarp: all lanes of a warp claim together; otherwise one thread does. Without a counter units are
// dealt out round-robin.
template <bool kWarp>
class Dealer {
 public:
  // `first`: this claimant's first unit; those of all claimants are 0 to num_claimants - 1. counter:
  // zero before the launch and after it, or null.
  __device__ __forceinline__ Dealer(int32_t* counter, unsigned first, unsigned num_claimants,
                                    unsigned num_units)
      : counter_(counter), unit_(first), num_claimants_(num_claimants), num_units_(num_units) {}

  __device__ __forceinline__ bool is_over() const { return unit_ >= num_units_; }
  __device__ __forceinline__ unsigned unit() const { return unit_; }

  __device__ __forceinline__ void next() {
    if (!counter_ || num_units_ <= num_claimants_) {
      unit_ += num_claimants_;
      return;
    }
    unsigned taken = 0;
    if (!kWarp || threadIdx.x % 32 == 0) {
      taken = atomicAdd(counter_, 1);
      // Every claimant claims once more than there is; the last of these resets the counter.
      if (taken == num_units_ - 1) *counter_ = 0;
    }
    unit_ = num_claimants_ + (kWarp ? __shfl_sync(kAllLanes, taken, 0) : taken);
  }

 private:
  int32_t* const counter_;
  unsigned unit_;
  const unsigned num_claimants_, num_units_;
};

}  // namespace seer::kernels::attention
