// What the sm80 forward takes, and the instance that it takes it with.

#include "seer/kernels/block_sparse_attn/sm80/fwd.h"

#include "seer/base/error.h"
#include "seer/kernels/block_sparse_attn/sm80/config.h"

namespace seer::kernels {
namespace {

using Params = BlockSparseAttnParams;

constexpr int kMaxHeads = 65535;  // they are the grid's second axis

// Empty, or why `unit` elements at a time cannot be read or written together.
template <class Pointer>
std::string why_not_aligned(const char* name, const Strided<Pointer>& x, int64_t tokens, int heads,
                            int unit) {
  const auto address = reinterpret_cast<uintptr_t>(x.data);
  if (address % (2 * unit) != 0) {
    return message(name, " begins ", address % (2 * unit), " bytes behind a multiple of ",
                   2 * unit);
  }
  if (tokens > 1 && x.token_stride % unit != 0) {
    return message(name, " has a token stride of ", x.token_stride, ", want a multiple of ", unit);
  }
  if (heads > 1 && x.head_stride % unit != 0) {
    return message(name, " has a head stride of ", x.head_stride, ", want a multiple of ", unit);
  }
  return "";
}

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
  if (p.num_q_heads > kMaxHeads) {
    return message(p.num_q_heads, " query heads, want at most ", kMaxHeads);
  }
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
