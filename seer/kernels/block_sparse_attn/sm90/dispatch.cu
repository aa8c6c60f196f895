#include "seer/kernels/attention/checks.h"
#include "seer/kernels/block_sparse_attn/gpu.h"
#include "seer/kernels/block_sparse_attn/sm90/fwd.cuh"

namespace seer::kernels {

std::string block_sparse_attn_sm90_why_not(const BlockSparseAttnParams& p) {
  const int64_t rows =
      p.lists.num_rows * (p.lists.block_q / sm90::kTile) * p.num_q_heads * sm90::num_parts(p);
  if (rows > INT32_MAX) return message(rows, " rows of all heads, want at most ", INT32_MAX);
  return why_not_aligned(p, 8);
}

void block_sparse_attn_sm90(const BlockSparseAttnParams& p, void* stream) {
  run_instance<64, 96, 128, 256>(p, [&]<class Element, int kHeadDim>() {
    sm90::run_block_sparse_fwd<Element, kHeadDim>(p, stream);
  });
  if (p.num_parts > 1) sm90::combine_parts(p, stream);
}

}  // namespace seer::kernels
