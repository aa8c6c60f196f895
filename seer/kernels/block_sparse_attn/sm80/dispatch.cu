#include "seer/kernels/attention/checks.h"
#include "seer/kernels/block_sparse_attn/gpu.h"
#include "seer/kernels/block_sparse_attn/sm80/fwd.cuh"

namespace seer::kernels {

std::string block_sparse_attn_sm80_why_not(const BlockSparseAttnParams& p) {
  return why_not_aligned(p, 2);
}

void block_sparse_attn_sm80(const BlockSparseAttnParams& p, void* stream) {
  run_instance<64, 96, 128, 256>(
      p, [&]<class Element, int kHeadDim>() { sm80::run_forward<Element, kHeadDim>(p, stream); });
}

}  // namespace seer::kernels
