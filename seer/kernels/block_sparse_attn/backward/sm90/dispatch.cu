#include "seer/kernels/attention/instance.h"
#include "seer/kernels/block_sparse_attn/backward/gpu.h"
#include "seer/kernels/block_sparse_attn/backward/prepare.h"
#include "seer/kernels/block_sparse_attn/backward/sm90/backward.h"
#include "seer/kernels/cuda_check.h"

namespace seer::kernels {

void block_sparse_attn_backward_sm90(const BlockSparseAttnBackwardParams& p, void* stream) {
  // Without a query there is nothing to load, only zeros to write.
  if (p.total_q == 0) return block_sparse_attn_backward_sm80(p, stream);
  const backward::Workspace w = backward::layout(p, num_multiprocessors());
  backward::prepare(p, w, stream);
  run_instance<64, 96, 128>(p, [&]<class Element, int kHeadDim>() {
    sm90::run_block_sparse_backward<Element, kHeadDim>(p, w, stream);
  });
  backward::add_parts(p, w, stream);
}

}  // namespace seer::kernels
