// The online softmax of the f32 tile engine, and the masks and map weights that all engines share.
// Included once per instruction set.

#if defined(SEER_TILE_SOFTMAX_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEER_TILE_SOFTMAX_INL_H_
#undef SEER_TILE_SOFTMAX_INL_H_
#else
#define SEER_TILE_SOFTMAX_INL_H_
#endif

#include <hwy/highway.h>

#include <cmath>

#include "seer/kernels/simd/exp2-inl.h"
#include "seer/kernels/simd/tile_engine.h"
#include "seer/kernels/simd/tile_pack-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seer::kernels::HWY_NAMESPACE {

void mask(const int32_t* limit, int lanes, int keys, float* s, float* row_max) {
  const LaneTag d;
  const hn::RebindToSigned<LaneTag> di;
  const int width = static_cast<int>(hn::Lanes(d));
  for (int lane = 0; lane < lanes; lane += width) {
    const auto last = hn::LoadU(di, limit + lane);
    const auto hidden = hn::Set(d, -INFINITY);
    auto top = hidden;
    for (int key = 0; key < keys; ++key) {
      float* at = s + key * lanes + lane;
      const auto is_hidden = hn::RebindMask(d, hn::Gt(hn::Set(di, key), last));
      const auto x = hn::IfThenElse(is_hidden, hidden, hn::Load(d, at));
      hn::Store(x, d, at);
      top = hn::Max(top, x);
    }
    hn::Store(top, d, row_max + lane);
  }
}

// Moves m where row_max has grown beyond it by more than 8: until then 2^(s - m) <= 2^8 loses
// nothing.
HWY_INLINE bool move_max(float scale_log2, const float* row_max, int lanes, float* m, float* l,
                         float* alpha) {
  const LaneTag d;
  const int width = static_cast<int>(hn::Lanes(d));
  bool moved = false;
  for (int i = 0; i < lanes; i += width) {
    const auto old = hn::Load(d, m + i);
    const auto top = hn::Mul(hn::Load(d, row_max + i), hn::Set(d, scale_log2));
    const auto grown = hn::Gt(top, hn::Add(old, hn::Set(d, 8.f)));
    const auto factor = hn::IfThenElse(grown, exp2(hn::Sub(old, top)), hn::Set(d, 1.f));
    hn::Store(hn::IfThenElse(grown, top, old), d, m + i);
    hn::Store(hn::Mul(hn::Load(d, l + i), factor), d, l + i);
    hn::Store(factor, d, alpha + i);
    moved |= !hn::AllFalse(d, grown);
  }
  return moved;
}

bool softmax(float scale_log2, const float* row_max, int lanes, int keys, float* s, float* m,
             float* l, float* alpha) {
  const LaneTag d;
  const int width = static_cast<int>(hn::Lanes(d));
  const bool moved = move_max(scale_log2, row_max, lanes, m, l, alpha);
  const auto scale = hn::Set(d, scale_log2);
  for (int lane = 0; lane < lanes; lane += width) {
    const auto top = hn::Load(d, m + lane);
    // A lane that has seen no key: avoid inf - inf.
    const auto offset = hn::IfThenZeroElse(hn::Eq(top, hn::Set(d, -INFINITY)), top);
    auto even = hn::Load(d, l + lane), odd = hn::Zero(d);
    for (int key = 0; key < keys; key += 2) {
      float* at = s + key * lanes + lane;
      const auto p0 = exp2(hn::MulSub(hn::Load(d, at), scale, offset));
      const auto p1 = exp2(hn::MulSub(hn::Load(d, at + lanes), scale, offset));
      hn::Store(p0, d, at);
      hn::Store(p1, d, at + lanes);
      even = hn::Add(even, p0);
      odd = hn::Add(odd, p1);
    }
    hn::Store(hn::Add(even, odd), d, l + lane);
  }
  return moved;
}

void weights(float scale_log2, const float* lse2, int lanes, int64_t rows, float* x) {
  const LaneTag d;
  const int width = static_cast<int>(hn::Lanes(d));
  const auto scale = hn::Set(d, scale_log2);
  for (int64_t row = 0; row < rows; ++row, x += lanes) {
    for (int lane = 0; lane < lanes; lane += width) {
      const auto shifted = hn::MulSub(hn::Load(d, x + lane), scale, hn::Load(d, lse2 + lane));
      hn::Store(exp2(shifted), d, x + lane);
    }
  }
}

}  // namespace seer::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
