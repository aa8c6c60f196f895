#pragma once
// For tests: a call of block_sparse_attn with a gradient of its output, and the gradients asked for.

#include <string>

#include "seer/kernels/attention/testing/attention_closeness.h"
#include "seer/kernels/block_sparse_attn/backward/reference.h"
#include "seer/kernels/block_sparse_attn/reference.h"
#include "seer/kernels/block_sparse_attn/testing/block_sparse_attn_case.h"

namespace seer::kernels {

// o and lse are the reference's, rounded as the dtype has it.
struct BackwardCall {
  BlockSparseAttnCall forward;
  AttentionTensor grad_o, grad_q, grad_k, grad_v;

  BackwardCall(const BlockSparseAttnCase& c, DType dtype)
      : BackwardCall(BlockSparseAttnCall(c, dtype)) {}
  explicit BackwardCall(const BlockSparseAttnCall& call)
      : forward(call),
        grad_o(empty(call.o)),
        grad_q(grad_o),
        grad_k(empty(call.k)),
        grad_v(grad_k) {
    Random random(7);
    grad_o.fill_normal(random);
    block_sparse_attn_reference(forward.params());
  }

  BlockSparseAttnBackwardParams params() {
    BlockSparseAttnBackwardParams p{forward.params()};
    p.lists = forward.params().lists;
    p.grad_o = grad_o.in();
    p.grad_q = grad_q.out();
    p.grad_k = grad_k.out();
    p.grad_v = grad_v.out();
    return p;
  }

  // Empty, or what is wrong with the gradients beside those of another call.
  std::string far_from(const BackwardCall& want, const Limits& limits) const {
    for (const auto& [name, x, y] :
         {std::tuple{"grad_q", &grad_q, &want.grad_q}, std::tuple{"grad_k", &grad_k, &want.grad_k},
          std::tuple{"grad_v", &grad_v, &want.grad_v}}) {
      const std::string wrong = kernels::far_from(values_of(*x), values_of(*y), limits);
      if (!wrong.empty()) return std::string(name) + ": " + wrong;
    }
    return "";
  }
  bool has_bits_of(const BackwardCall& other) const {
    return grad_q.bytes == other.grad_q.bytes && grad_k.bytes == other.grad_k.bytes &&
           grad_v.bytes == other.grad_v.bytes;
  }

 private:
  static AttentionTensor empty(const AttentionTensor& x) {
    return {x.dtype, x.tokens, x.heads, x.head_dim, static_cast<int>(x.head_stride) - x.head_dim};
  }
};

// The same call's gradients by the reference.
inline BackwardCall backward_reference(BackwardCall call) {
  block_sparse_attn_backward_reference(call.params());
  return call;
}

// Every row lists the first block, its own, and few others: columns of very unequal lengths.
inline BackwardCall with_a_sink(const BlockSparseAttnCase& shape, DType dtype) {
  BlockSparseAttnCall call(shape, dtype);
  call.list.clear(), call.begin.clear(), call.count.clear();
  Random random(3);
  for (int head = 0; head < shape.list_heads(); ++head) {
    for (int row = 0; row * shape.block_q < shape.q_lens[0]; ++row) {
      call.begin.push_back(static_cast<int64_t>(call.list.size()));
      for (int j = 0; j <= row; ++j) {
        if (j == 0 || j == row || random.uniform() < 0.03) call.list.push_back(j);
      }
      call.count.push_back(static_cast<int32_t>(call.list.size() - call.begin.back()));
    }
  }
  return BackwardCall(call);
}

}  // namespace seer::kernels
