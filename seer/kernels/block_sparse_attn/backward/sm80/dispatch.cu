#include "seer/kernels/attention/instance.h"
#include "seer/kernels/block_sparse_attn/backward/gpu.h"
#include "seer/kernels/block_sparse_attn/backward/prepare.h"
#include "seer/kernels/block_sparse_attn/backward/sm80/backward.h"
#include "seer/kernels/cuda_check.h"

namespace seer::kernels {

void block_sparse_attn_backward_sm80(const BlockSparseAttnBackwardParams& p, void* stream) {
  const backward::Workspace w = backward::layout(p, num_multiprocessors());
  backward::prepare(p, w, stream);
  run_instance<64, 96, 128, 256>(p, [&]<class Element, int kHeadDim>() {
    sm80::run_block_sparse_backward<Element, kHeadDim>(p, w, stream);
  });
  backward::add_parts(p, w, stream);
}

}  // namespace seer::kernels
