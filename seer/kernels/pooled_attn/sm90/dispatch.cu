#include <algorithm>

#include "seer/kernels/attention/checks.h"
#include "seer/kernels/attention/tile_order.h"
#include "seer/kernels/pooled_attn/gpu.h"
#include "seer/kernels/pooled_attn/map_rows.h"
#include "seer/kernels/pooled_attn/sm90/attn.cuh"
#include "seer/kernels/pooled_attn/sm90/lookup.cuh"

namespace seer::kernels {

std::string pooled_attn_sm90_why_not(const PooledAttnParams& p) {
  if (!p.block_softmax && p.head_dim != 64 && p.head_dim != 128) {
    return message("head_dim is ", p.head_dim, ", want 64 or 128");
  }
  if (p.block_q == 1) return "block_q is 1, want 64 or 128";
  return why_not_aligned(p, 8);
}

int64_t pooled_attn_sm90_workspace(const PooledAttnParams& p, int num_sms) {
  const pooled_sm90::Kept kept = pooled_sm90::kept_of(p);
  const int64_t tiles = num_places(tile_order(p, kept.queries, 0));
  const int64_t steps = std::min<int64_t>(pooled_sm90::longest_row_steps(p, kept), kept.most_steps);
  return pooled_sm90::kCounterBytes + std::min<int64_t>(tiles, num_sms) * steps * kept.step_bytes();
}

void pooled_attn_sm90(const PooledAttnParams& p, void* stream) {
  clear_map(p, stream);
  if (p.block_softmax) {
    run_instance<32, 64>(p, [&]<class Element, int kHeadDim>() {
      pooled_sm90::run_lookups<Element, kHeadDim>(p, stream);
    });
  } else {
    run_instance<64, 128>(p, [&]<class Element, int kHeadDim>() {
      p.o.data ? pooled_sm90::run_attention<Element, kHeadDim>(p, stream)
               : pooled_sm90::run_map<Element, kHeadDim>(p, stream);
    });
  }
  if (p.normalise) normalise_map(p, stream);
}

}  // namespace seer::kernels
