// What only the sm90 forward asks for, and the instance that it takes it with.

#include "seer/kernels/block_sparse_attn/sm90/dispatch.h"

#include <algorithm>

#include "seer/base/error.h"
#include "seer/kernels/alignment.h"
#include "seer/kernels/block_sparse_attn/sm90/config.h"
#include "seer/kernels/block_sparse_attn/sm90/fwd.h"

namespace seer::kernels {
namespace {

using Params = BlockSparseAttnParams;

template <class Element>
void run(const Params& p, void* stream) {
  switch (p.head_dim) {
    case 64: return sm90::run_block_sparse_fwd<Element, 64>(p, stream);
    case 96: return sm90::run_block_sparse_fwd<Element, 96>(p, stream);
    case 128: return sm90::run_block_sparse_fwd<Element, 128>(p, stream);
    case 256: return sm90::run_block_sparse_fwd<Element, 256>(p, stream);
  }
}

}  // namespace

std::string block_sparse_attn_sm90_why_not(const Params& p) {
  const int64_t rows =
      p.lists.num_rows * (p.lists.block_q / sm90::kTile) * p.num_q_heads * std::max(p.num_parts, 1);
  if (rows > INT32_MAX) return message(rows, " rows of all heads, want at most ", INT32_MAX);
  // Copied, and o written, 16 bytes at a time.
  std::string reason = why_not_aligned("q", p.q, p.total_q, p.num_q_heads, 8);
  if (reason.empty()) reason = why_not_aligned("k", p.k, p.total_k, p.num_kv_heads, 8);
  if (reason.empty()) reason = why_not_aligned("v", p.v, p.total_k, p.num_kv_heads, 8);
  if (reason.empty()) reason = why_not_aligned("o", p.o, p.total_q, p.num_q_heads, 8);
  return reason;
}

void block_sparse_attn_sm90(const Params& p, void* stream) {
  p.dtype == DType::bf16 ? run<sm90::bf16>(p, stream) : run<sm90::f16>(p, stream);
  if (p.num_parts > 1) sm90::combine_parts(p, stream);
}

}  // namespace seer::kernels
