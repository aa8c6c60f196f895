// Powers of two of f32 vectors of at most 16 lanes. Included once per instruction set.

#if defined(SEER_EXP2_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEER_EXP2_INL_H_
#undef SEER_EXP2_INL_H_
#else
#define SEER_EXP2_INL_H_
#endif

#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace seer::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Buffers are padded to 16 floats: no vector may be longer.
using LaneTag = hn::CappedTag<float, 16>;
using Vector = hn::Vec<LaneTag>;

// 2^x for x <= 127: the whole part through the exponent bits, 2^[-1/2, 1/2] by a polynomial of
// degree 5 (minimax, relative error 1e-7). Exactly 0 for x <= -127, NaN for NaN.
HWY_INLINE Vector exp2(Vector x) {
  const LaneTag d;
  const hn::RebindToSigned<LaneTag> di;
  // Written so that a NaN is kept: it compares false.
  x = hn::IfThenElse(hn::Lt(x, hn::Set(d, -127.f)), hn::Set(d, -127.f), x);
  const auto whole = hn::Round(x);
  const auto f = hn::Sub(x, whole);
  auto y = hn::Set(d, 0.001326472723f);
  y = hn::MulAdd(y, f, hn::Set(d, 0.009671512673f));
  y = hn::MulAdd(y, f, hn::Set(d, 0.05550733743f));
  y = hn::MulAdd(y, f, hn::Set(d, 0.2402224208f));
  y = hn::MulAdd(y, f, hn::Set(d, 0.6931469776f));
  y = hn::MulAdd(y, f, hn::Set(d, 1.f));
  const auto exponent = hn::Add(hn::ConvertTo(di, whole), hn::Set(di, 127));
  return hn::Mul(y, hn::BitCast(d, hn::ShiftLeft<23>(exponent)));
}

}  // namespace seer::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
