#include "seer/kernels/attention/instance.h"
#include "seer/kernels/block_sparse_attn/backward/gpu.h"
#include "seer/kernels/block_sparse_attn/backward/prepare.h"
#include "seer/kernels/block_sparse_attn/backward/sm90/columns.cuh"
#include "seer/kernels/block_sparse_attn/backward/sm90/rows.cuh"
#include "seer/kernels/cuda_check.h"

namespace seer::kernels {
namespace sm90 {
namespace {

// The two kernels that do the products; `w` is prepared.
template <class Element, int kHeadDim>
void run_block_sparse_backward(const BlockSparseAttnBackwardParams& p,
                               const kernels::backward::Workspace& w, void* stream) {
  using Rows = backward::RowsConfig<Element, kHeadDim>;
  using Columns = backward::ColumnsConfig<Element, kHeadDim>;
  const backward::BackwardMaps maps{
      attention::tensor_maps(p),
      tensor_map(p.grad_o, p.total_q, p.num_q_heads, p.head_dim, p.dtype)};
  const unsigned grid = num_multiprocessors();
  launch(backward::backward_rows<Rows>, grid, Rows::kThreads, sizeof(typename Rows::Smem), stream,
         maps, p, w);
  launch(backward::backward_columns<Columns>, grid, Columns::kThreads,
         sizeof(typename Columns::Smem), stream, maps, p, w);
}

}  // namespace
}  // namespace sm90

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
