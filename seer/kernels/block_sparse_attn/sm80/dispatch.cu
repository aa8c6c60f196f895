// What only the sm80 forward asks for, and the instance that it takes it with.

#include "seer/kernels/block_sparse_attn/sm80/fwd.h"

#include "seer/base/error.h"
#include "seer/kernels/alignment.h"
#include "seer/kernels/block_sparse_attn/sm80/config.h"

namespace seer::kernels {
namespace {

using Params = BlockSparseAttnParams;

template <class Element>
void run(const Params& p, void* stream) {
  switch (p.head_dim) {
    case 64: return sm80::run_forward<Element, 64>(p, stream);
    case 96: return sm80::run_forward<Element, 96>(p, stream);
    case 128: return sm80::run_forward<Element, 128>(p, stream);
    case 256: return sm80::run_forward<Element, 256>(p, stream);
  }
}

}  // namespace

std::string block_sparse_attn_sm80_why_not(const Params& p) {
  std::string reason = why_not_aligned("q", p.q, p.total_q, p.num_q_heads, 8);
  if (reason.empty()) reason = why_not_aligned("k", p.k, p.total_k, p.num_kv_heads, 8);
  if (reason.empty()) reason = why_not_aligned("v", p.v, p.total_k, p.num_kv_heads, 8);
  if (reason.empty()) reason = why_not_aligned("o", p.o, p.total_q, p.num_q_heads, 2);
  return reason;
}

void block_sparse_attn_sm80(const Params& p, void* stream) {
  p.dtype == DType::bf16 ? run<sm80::bf16>(p, stream) : run<sm80::f16>(p, stream);
}

}  // namespace seer::kernels
