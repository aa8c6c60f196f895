#include <algorithm>

#include "seer/kernels/attention/checks.h"
#include "seer/kernels/attention/tile_order.h"
#include "seer/kernels/pooled_attn/gpu.h"
#include "seer/kernels/pooled_attn/map_rows.h"
#include "seer/kernels/pooled_attn/sm80/attn.cuh"

namespace seer::kernels {

std::string pooled_attn_sm80_why_not(const PooledAttnParams& p) {
  return why_not_aligned(p, 2);
}

int64_t pooled_attn_sm80_workspace(const PooledAttnParams& p, int num_sms) {
  const int64_t tiles = num_places(tile_order(p, attention::kQueries, 0));
  const int64_t blocks = int64_t{num_sms} * pooled_sm80::blocks_per_sm(p.head_dim);
  return std::min(tiles, blocks) * pooled_sm80::slot_bytes(p);
}

void pooled_attn_sm80(const PooledAttnParams& p, void* stream) {
  clear_map(p, stream);
  run_instance<64, 96, 128, 256>(p, [&]<class Element, int kHeadDim>() {
    pooled_sm80::run_attention<Element, kHeadDim>(p, stream);
  });
  if (p.normalise) normalise_map(p, stream);
}

}  // namespace seer::kernels
