#include "seer/kernels/block_sparse_attn/backward/cpu_products.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "seer/kernels/block_sparse_attn/backward/cpu_products.cc"
#include <hwy/foreach_target.h>
// foreach_target.h must come first.
#include <hwy/highway.h>

#include <algorithm>

#include "seer/kernels/simd/exp2-inl.h"
#include "seer/kernels/simd/gemm-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seer::kernels::HWY_NAMESPACE {

// Scores and grad_o v^T of one query become weights and gradients of scores. `visible` keys.
void finish_row(const BackwardBlock& b, int i, int visible) {
  const LaneTag d;
  const int width = static_cast<int>(hn::Lanes(d));
  float* const weights = b.weights + i * b.stride;
  float* const grad = b.grad_score + i * b.stride;
  const auto scale = hn::Set(d, b.scale * 1.44269504f), lse = hn::Set(d, b.lse[i]);
  const auto delta = hn::Set(d, b.delta[i]);
  // Padding up to `stride` has any values: it becomes zero, too.
  for (int j = 0; j < b.stride; j += width) {
    const auto is_visible = hn::FirstN(d, std::clamp(visible - j, 0, width));
    const auto p = exp2(hn::MulSub(hn::LoadU(d, weights + j), scale, lse));
    const auto ds = hn::Mul(p, hn::Sub(hn::LoadU(d, grad + j), delta));
    hn::StoreU(hn::IfThenElseZero(is_visible, p), d, weights + j);
    hn::StoreU(hn::IfThenElseZero(is_visible, ds), d, grad + j);
  }
}

void rows(const BackwardBlock& b) {
  const int64_t m = b.num_queries, n = b.num_keys, dim = b.head_dim;
  gemm({m, n, dim, b.q, dim, 1, b.k_t, b.stride, b.weights, b.stride, false});
  gemm({m, n, dim, b.grad_o, dim, 1, b.v_t, b.stride, b.grad_score, b.stride, false});
  for (int i = 0; i < b.num_queries; ++i) {
    finish_row(b, i, static_cast<int>(std::clamp<int64_t>(b.limit + b.slope * i + 1, 0, n)));
  }
  gemm({m, dim, n, b.grad_score, b.stride, 1, b.k, dim, b.grad_q, dim, true});
}

void columns(const BackwardBlock& b) {
  const int64_t m = b.num_keys, n = b.head_dim, depth = b.num_queries;
  gemm({m, n, depth, b.weights, 1, b.stride, b.grad_o, n, b.grad_v, n, true});
  gemm({m, n, depth, b.grad_score, 1, b.stride, b.q, n, b.grad_k, n, true});
}

const BackwardProducts* make_products() {
  static const BackwardProducts products = {rows, columns};
  return &products;
}

}  // namespace seer::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seer::kernels {

HWY_EXPORT(make_products);
const BackwardProducts& backward_products() {
  return *HWY_DYNAMIC_DISPATCH(make_products)();
}

}  // namespace seer::kernels
#endif
