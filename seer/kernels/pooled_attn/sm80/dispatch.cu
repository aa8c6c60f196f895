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
  return std::min(tiles, blocks) * pooled_sm80::slot_bytes(p) + pooled_sm80::row_bytes(p);
}

// The map alone takes the same kernel: keys stand for the values, and all rows of o are one row of the
// workspace.
void pooled_attn_sm80(const PooledAttnParams& call, void* stream) {
  PooledAttnParams p = call;
  if (!p.o.data) {
    const int64_t row = pooled_sm80::row_bytes(p);
    SEER_CHECK(p.workspace_bytes >= row, "pooled_attn: the workspace has ", p.workspace_bytes,
               " bytes, want those of pooled_attn_workspace()");
    p.v = p.k;
    p.o = {p.workspace, 0, 0};
    p.workspace = static_cast<char*>(p.workspace) + row;
    p.workspace_bytes -= row;
  }
  clear_map(p, stream);
  if (p.block_softmax) {
    run_instance<32, 64>(p, [&]<class Element, int kHeadDim>() {
      pooled_sm80::run_attention<Element, kHeadDim, true>(p, stream);
    });
  } else {
    run_instance<64, 96, 128, 256>(p, [&]<class Element, int kHeadDim>() {
      pooled_sm80::run_attention<Element, kHeadDim, false>(p, stream);
    });
  }
  if (p.normalise) normalise_map(p, stream);
}

}  // namespace seer::kernels
