#pragma once
// What lookup heads read of q and k: the contract.

#include <array>
#include <cstdint>

#include "seer/kernels/attention/params.h"

namespace seer::kernels {

// y[t, l] = x[t, heads[l]] weight[l], in one call for q and for k, whose heads may repeat. Products are those of x's type, weights
// rounded to it; sums are f32.
struct LookupProjectParams {
  struct Side {
    StridedIn x;           // [T, H, D]
    const int64_t* heads;  // [L], each below H
    const float* weight;   // [L, D, r]
    void* y;               // [T, L, r] f16, contiguous; every element is written
    int64_t num_tokens;    // T
  };
  std::array<Side, 2> sides;
  DType dtype;    // of x
  int num_heads;  // L
  int head_dim;   // D
  int rank;       // r
};

}  // namespace seer::kernels
