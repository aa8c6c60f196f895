// Pooling of tokens into blocks. Memory-bound: tokens are read once, in the order in which they
// lie, a few rows side by side; the sums of a block stay in the cache.

#include "seer/kernels/attn_gate/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "seer/kernels/attn_gate/pool_cpu.cc"
#include <hwy/foreach_target.h>
// foreach_target.h must come first.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <type_traits>

#include "seer/base/error.h"
#include "seer/kernels/row_blocks.h"

HWY_BEFORE_NAMESPACE();
namespace seer::kernels::HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;

template <class D, class Element>
HWY_INLINE hn::Vec<D> load(D d, const Element* at) {
  if constexpr (std::is_same_v<Element, float>) {
    return hn::LoadU(d, at);
  } else {
    return hn::PromoteTo(d, hn::LoadU(hn::Rebind<Element, D>(), at));
  }
}

// Where the poolings of one head go; null: not wanted.
struct Pools {
  float* max;
  float* min;
  float* avg;
};

// `x` where `keep` is true, NaN elsewhere: Max() and Min() of some instruction sets give the second of
// two operands if one of them is NaN, and others the one that is not.
template <class D>
HWY_INLINE hn::Vec<D> or_nan(D d, hn::Mask<D> keep, hn::Vec<D> x) {
  return hn::IfThenElse(keep, x, hn::Set(d, NAN));
}

// Takes kTokens tokens of one head, features i .. i + lanes - 1, into the pools.
template <int kTokens, class D, class Element>
HWY_INLINE void take(D d, const Element* x, int64_t token_stride, const Pools& pools, int64_t i,
                     bool first) {
  const auto a = load(d, x + i);
  auto top = a, bottom = a, sum = a;
  auto are_numbers = hn::Eq(a, a);
  if constexpr (kTokens == 4) {
    const auto b = load(d, x + token_stride + i);
    const auto c = load(d, x + 2 * token_stride + i);
    const auto e = load(d, x + 3 * token_stride + i);
    top = hn::Max(hn::Max(a, b), hn::Max(c, e));
    bottom = hn::Min(hn::Min(a, b), hn::Min(c, e));
    sum = hn::Add(hn::Add(a, b), hn::Add(c, e));
    are_numbers = hn::And(hn::And(are_numbers, hn::Eq(b, b)), hn::And(hn::Eq(c, c), hn::Eq(e, e)));
  }
  if (pools.max) {
    const auto old = first ? top : hn::LoadU(d, pools.max + i);
    const auto keep = first ? are_numbers : hn::And(are_numbers, hn::Eq(old, old));
    hn::StoreU(or_nan(d, keep, hn::Max(top, old)), d, pools.max + i);
  }
  if (pools.min) {
    const auto old = first ? bottom : hn::LoadU(d, pools.min + i);
    const auto keep = first ? are_numbers : hn::And(are_numbers, hn::Eq(old, old));
    hn::StoreU(or_nan(d, keep, hn::Min(bottom, old)), d, pools.min + i);
  }
  if (pools.avg) {
    hn::StoreU(first ? sum : hn::Add(sum, hn::LoadU(d, pools.avg + i)), d, pools.avg + i);
  }
}

Pools pools_of(const GatePoolParams& p, float* out) {
  Pools pools{};
  const auto next = [&] {
    float* at = out;
    out += p.head_dim;
    return at;
  };
  if (p.pools & kPoolMax) pools.max = next();
  if (p.pools & kPoolMin) pools.min = next();
  if (p.pools & kPoolAvg) pools.avg = next();
  return pools;
}

// kTokens tokens from `token` on, every head.
template <int kTokens, class Element>
HWY_INLINE void take_tokens(const GatePoolParams& p, int64_t token, float* out, int64_t out_stride,
                            bool first) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> d1;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  for (int64_t h = 0; h < p.num_heads; ++h) {
    const auto* x =
        static_cast<const Element*>(p.x.data) + token * p.x.token_stride + h * p.x.head_stride;
    const Pools pools = pools_of(p, out + h * out_stride);
    int64_t i = 0;
    for (; i + lanes <= p.head_dim; i += lanes) {
      take<kTokens>(d, x, p.x.token_stride, pools, i, first);
    }
    for (; i < p.head_dim; ++i) take<kTokens>(d1, x, p.x.token_stride, pools, i, first);
  }
}

template <class Element>
void pool_block(const GatePoolParams& p, int64_t r) {
  const int b = sequence_of(p.cu_blocks, p.num_seqs, r);
  const int64_t begin = p.cu[b] + (r - p.cu_blocks[b]) * p.block;
  const int64_t end = std::min<int64_t>(begin + p.block, p.cu[b + 1]);
  const int num_pools = (p.pools & 1) + (p.pools >> 1 & 1) + (p.pools >> 2 & 1);
  const int64_t out_stride = static_cast<int64_t>(num_pools) * p.head_dim;
  float* out = p.pooled + r * p.num_heads * out_stride;
  int64_t token = begin;
  for (; token + 4 <= end; token += 4) {
    take_tokens<4, Element>(p, token, out, out_stride, token == begin);
  }
  for (; token < end; ++token) {
    take_tokens<1, Element>(p, token, out, out_stride, token == begin);
  }
  if (p.pools & kPoolAvg) {
    const float count = static_cast<float>(end - begin);
    for (int64_t h = 0; h < p.num_heads; ++h) {
      float* avg = pools_of(p, out + h * out_stride).avg;
      for (int64_t i = 0; i < p.head_dim; ++i) avg[i] /= count;
    }
  }
}

template <class Element>
void pool_blocks(const GatePoolParams& p) {
#pragma omp parallel for schedule(dynamic)
  for (int64_t r = 0; r < p.num_blocks; ++r) pool_block<Element>(p, r);
}

void attn_gate_pool(const GatePoolParams& p) {
  switch (p.dtype) {
    case DType::f32: return pool_blocks<float>(p);
    case DType::f16: return pool_blocks<hwy::float16_t>(p);
    case DType::bf16: return pool_blocks<hwy::bfloat16_t>(p);
    case DType::f64: break;
  }
  fail("attn_gate_pool: dtype is f64, want f32, f16 or bf16");
}

}  // namespace
}  // namespace seer::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seer::kernels {

HWY_EXPORT(attn_gate_pool);
void attn_gate_pool_cpu(const GatePoolParams& p) {
  HWY_DYNAMIC_DISPATCH(attn_gate_pool)(p);
}

}  // namespace seer::kernels
#endif
