#include "seer/kernels/attention/instance.h"
#include "seer/kernels/block_sparse_attn/backward/gpu.h"
#include "seer/kernels/block_sparse_attn/backward/prepare.h"
#include "seer/kernels/block_sparse_attn/backward/sm80/columns.cuh"
#include "seer/kernels/block_sparse_attn/backward/sm80/rows.cuh"
#include "seer/kernels/cuda_check.h"

namespace seer::kernels {
namespace sm80 {
namespace {

// The two kernels that do the products; `w` is prepared.
template <class Element, int kHeadDim>
void run_block_sparse_backward(const BlockSparseAttnBackwardParams& p,
                               const kernels::backward::Workspace& w, void* stream) {
  using Config = backward::BackwardConfig<Element, kHeadDim>;
  const dim3 rows(static_cast<unsigned>(w.row_tiles), p.num_q_heads);
  if (w.row_tiles > 0) {
    launch(backward::backward_rows<Config>, rows, backward::kThreads,
           sizeof(typename Config::RowSmem), stream, p, w);
  }
  const dim3 columns(static_cast<unsigned>(w.most_parts + p.num_kv_heads * w.column_tiles));
  launch(backward::backward_columns<Config>, columns, backward::kThreads * Config::kHalves,
         sizeof(typename Config::ColumnSmem), stream, p, w);
}

}  // namespace
}  // namespace sm80

void block_sparse_attn_backward_sm80(const BlockSparseAttnBackwardParams& p, void* stream) {
  const backward::Workspace w = backward::layout(p, num_multiprocessors());
  backward::prepare(p, w, stream);
  run_instance<64, 96, 128, 256>(p, [&]<class Element, int kHeadDim>() {
    sm80::run_block_sparse_backward<Element, kHeadDim>(p, w, stream);
  });
  backward::add_parts(p, w, stream);
}

}  // namespace seer::kernels
