#pragma once
// Dense attention with the block max-pooled attention map, on the CPU.

#include <string>

#include "seer/kernels/pooled_attn/params.h"
#include "seer/kernels/simd/tile_engine.h"

namespace seer::kernels {

// Empty, or why the CPU does not take this call.
std::string pooled_attn_cpu_why_not(const PooledAttnParams& p);

// The same bits in every run and for every number of threads. Error: prefix sums that are out of
// range or in disorder.
void pooled_attn_cpu(const PooledAttnParams& p, const TileEngine& engine);

}  // namespace seer::kernels
