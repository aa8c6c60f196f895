// What the sm90 forward takes, and the instance that it takes it with.

#include "seer/kernels/block_sparse_attn/sm90/dispatch.h"

#include "seer/base/error.h"
#include "seer/kernels/block_sparse_attn/sm90/config.h"
#include "seer/kernels/block_sparse_attn/sm90/fwd.h"
#include "seer/kernels/tensor_map.h"

namespace seer::kernels {
namespace {

using Params = BlockSparseAttnParams;

// Longer queues hide the start of a row behind the end of the one before, but neighbouring thread
// blocks then work on rows of different heads, whose keys do not fit into the L2 cache together:
// 459, 451, 365, 303 kept TFLOP/s for 1, 2, 4, 8 rows (32k, density 0.1, D = 128, H200).
constexpr int kRowsPerBlock = 1;

template <class Element>
void run(const Params& p, void* stream) {
  switch (p.head_dim) {
    case 64: return sm90::run_block_sparse_fwd<Element, 64>(p, stream, kRowsPerBlock);
    case 96: return sm90::run_block_sparse_fwd<Element, 96>(p, stream, kRowsPerBlock);
    case 128: return sm90::run_block_sparse_fwd<Element, 128>(p, stream, kRowsPerBlock);
    case 256: return sm90::run_block_sparse_fwd<Element, 256>(p, stream, kRowsPerBlock);
  }
}

}  // namespace

std::string block_sparse_attn_sm90_why_not(const Params& p) {
  if (p.dtype == DType::f32) return "dtype is f32, want bf16 or f16";
  if (p.head_dim != 64 && p.head_dim != 96 && p.head_dim != 128 && p.head_dim != 256) {
    return message("head_dim is ", p.head_dim, ", want 64, 96, 128 or 256");
  }
  if (p.lists.block_q != 64 && p.lists.block_q != 128) {
    return message("block_q is ", p.lists.block_q, ", want 64 or 128");
  }
  if (p.lists.block_k != 64 && p.lists.block_k != 128) {
    return message("block_k is ", p.lists.block_k, ", want 64 or 128");
  }
  const int64_t rows = p.lists.num_rows * (p.lists.block_q / sm90::kTile) * p.num_q_heads;
  if (rows > INT32_MAX) return message(rows, " rows of all heads, want at most ", INT32_MAX);
  std::string reason = tensor_map_why_not("q", p.q, p.total_q, p.num_q_heads);
  if (reason.empty()) reason = tensor_map_why_not("k", p.k, p.total_k, p.num_kv_heads);
  if (reason.empty()) reason = tensor_map_why_not("v", p.v, p.total_k, p.num_kv_heads);
  // Written 16 bytes at a time.
  const StridedIn o{p.o.data, p.o.token_stride, p.o.head_stride};
  if (reason.empty()) reason = tensor_map_why_not("o", o, p.total_q, p.num_q_heads);
  return reason;
}

void block_sparse_attn_sm90(const Params& p, void* stream) {
  p.dtype == DType::bf16 ? run<sm90::bf16>(p, stream) : run<sm90::f16>(p, stream);
}

}  // namespace seer::kernels
