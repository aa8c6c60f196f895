// How a decode step on the CPU reads keys and values, and its two products. Included once per
// instruction set.

#if defined(SEER_DECODE_PRODUCTS_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEER_DECODE_PRODUCTS_INL_H_
#undef SEER_DECODE_PRODUCTS_INL_H_
#else
#define SEER_DECODE_PRODUCTS_INL_H_
#endif

#include <hwy/cache_control.h>
#include <hwy/highway.h>

#include <algorithm>

#include "seer/kernels/decode_attn/cpu_piece.h"
#include "seer/kernels/simd/element.h"
#include "seer/kernels/simd/exp2-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seer::kernels::HWY_NAMESPACE {
namespace {

inline int width() {
  return static_cast<int>(hn::Lanes(LaneTag()));
}

int padded(int head_dim) {
  const int unit = 2 * width();
  return (head_dim + unit - 1) / unit * unit;
}

// Whether rows are read as they are; others are widened to f32 first, a block at a time.
bool is_direct(DType dtype, int head_dim) {
  return dtype != DType::f16 && head_dim == padded(head_dim);
}

// Half kHalf of a unit of features: the first or second vector, or the even or odd bf16 elements.
template <int kHalf>
HWY_INLINE Vector load_half(const float* x) {
  const LaneTag d;
  return hn::LoadU(d, x + kHalf * width());
}
template <int kHalf>
HWY_INLINE Vector load_half(const uint16_t* x) {
  const LaneTag d;
  const hn::RebindToUnsigned<LaneTag> bits;
  const auto pairs = hn::LoadU(bits, reinterpret_cast<const uint32_t*>(x));
  if (kHalf == 0) return hn::BitCast(d, hn::ShiftLeft<16>(pairs));
  return hn::BitCast(d, hn::And(pairs, hn::Set(bits, 0xffff0000u)));
}

void widen(DType dtype, const void* x, int64_t at, int head_dim, float* out) {
  if (dtype == DType::f32) {
    std::copy_n(static_cast<const float*>(x) + at, head_dim, out);
    return;
  }
  int i = 0;
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3  // Highway 1.0.3 converts f16 from AVX2 on
  const LaneTag d;
  const hn::Rebind<hwy::float16_t, LaneTag> half;
  const auto* in = reinterpret_cast<const hwy::float16_t*>(static_cast<const uint16_t*>(x) + at);
  for (; dtype == DType::f16 && i + width() <= head_dim; i += width()) {
    hn::StoreU(hn::PromoteTo(d, hn::LoadU(half, in + i)), d, out + i);
  }
#endif
  for (; i < head_dim; ++i) out[i] = load_element(dtype, x, at + i);
}

// --- sums over the lanes of vectors ---

#if HWY_TARGET == HWY_SCALAR

HWY_INLINE void sums_of_four(const Vector* x, float* out) {
  for (int i = 0; i < 4; ++i) out[i] = hn::GetLane(x[i]);
}

#else

using FourTag = hn::CappedTag<float, 4>;

HWY_INLINE hn::Vec<FourTag> to_four(FourTag, hn::Vec<FourTag> x) {
  return x;
}
template <class Tag, class V>
HWY_INLINE hn::Vec<FourTag> to_four(Tag d, V x) {
  const hn::Half<Tag> half;
  return to_four(half, hn::Add(hn::LowerHalf(half, x), hn::UpperHalf(half, x)));
}
// Within each 128 bits: a0 + a2, b0 + b2, a1 + a3, b1 + b3.
HWY_INLINE Vector pair_sums(Vector a, Vector b) {
  const LaneTag d;
  return hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));
}
HWY_INLINE void sums_of_four(const Vector* x, float* out) {
  const LaneTag d;
  const hn::Repartition<double, LaneTag> pairs;
  const auto low = hn::BitCast(pairs, pair_sums(x[0], x[1]));
  const auto high = hn::BitCast(pairs, pair_sums(x[2], x[3]));
  const Vector sums = hn::Add(hn::BitCast(d, hn::InterleaveLower(pairs, low, high)),
                              hn::BitCast(d, hn::InterleaveUpper(pairs, low, high)));
  hn::StoreU(to_four(d, sums), FourTag(), out);
}

#endif

// --- the two products ---

// Keeps a compiler from reading x again from memory each time that it is used.
HWY_INLINE void keep_in_register(Vector& x) {
#if HWY_ARCH_X86 && HWY_TARGET != HWY_SCALAR
  asm("" : "+x"(x.raw));
#else
  (void)x;
#endif
}

// Fetches what the product that comes next will read, line by line in the order of memory, which is
// what a CPU's own prefetcher follows.
class Ahead {
 public:
  Ahead() = default;
  Ahead(DType dtype, const void* rows, int64_t stride, int head_dim)
      : row_(static_cast<const char*>(rows)),
        stride_(stride * static_cast<int64_t>(size_of(dtype))),
        row_bytes_(head_dim * static_cast<int64_t>(size_of(dtype))) {}
  // As much as `bytes` of a row.
  HWY_INLINE void step(int bytes) {
    if (!row_) return;
    for (int line = 0; line < bytes; line += 64) hwy::Prefetch(row_ + at_ + line);
    at_ += bytes;
    if (at_ < row_bytes_) return;
    at_ = 0;
    row_ += stride_;
  }

 private:
  const char* row_ = nullptr;  // null: nothing comes
  int64_t stride_ = 0, row_bytes_ = 0, at_ = 0;
};

// sum [kRows][kKeys] += half kHalf of a unit of features of q k^T; q and k point to the unit.
template <int kHalf, int kRows, int kKeys, class Element>
HWY_INLINE void add_half(const float* HWY_RESTRICT q, int size, const Element* k, int64_t stride,
                         Vector* HWY_RESTRICT sum) {
  const LaneTag d;
  Vector row[kRows];
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) {
    row[r] = hn::LoadU(d, q + r * size + kHalf * width());
    if (kKeys > 1) keep_in_register(row[r]);
  }
#pragma GCC unroll 8
  for (int key = 0; key < kKeys; ++key) {
    const Vector x = load_half<kHalf>(k + key * stride);
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      sum[r * kKeys + key] = hn::MulAdd(row[r], x, sum[r * kKeys + key]);
    }
  }
}

// s [kRows][kDecodeBlock] at kKeys keys.
template <int kRows, int kKeys, class Element>
HWY_INLINE void scores_tile(const float* HWY_RESTRICT q, int size, const Element* k, int64_t stride,
                            Ahead& ahead, float* HWY_RESTRICT s) {
  const LaneTag d;
  const int unit = 2 * width();
  constexpr int kSums = (kRows * kKeys + 3) / 4 * 4;
  Vector sum[kSums];
  for (auto& x : sum) x = hn::Zero(d);
  for (int i = 0; i < size; i += unit) {
#pragma GCC unroll 8
    for (int key = 0; key < kKeys; ++key) ahead.step(unit * static_cast<int>(sizeof(Element)));
    add_half<0, kRows, kKeys>(q + i, size, k + i, stride, sum);
    add_half<1, kRows, kKeys>(q + i, size, k + i, stride, sum);
  }
  float sums[kSums];
#pragma GCC unroll 3
  for (int i = 0; i < kSums; i += 4) sums_of_four(sum + i, sums + i);
  for (int r = 0; r < kRows; ++r) {
    for (int key = 0; key < kKeys; ++key) s[r * kDecodeBlock + key] = sums[r * kKeys + key];
  }
}

// Eight sums at a time hide the latency of a product; more than twelve need more than 16 registers.
template <int kRows, class Element>
void scores_rows(const float* q, int size, const Element* k, int64_t stride, int num_keys,
                 Ahead& ahead, float* s) {
  constexpr int kKeys = kRows == 3 ? 4 : 8 / kRows;
  int key = 0;
  const auto next = [&](int n) {
    k += n * stride;
    key += n;
  };
  for (; key + kKeys <= num_keys; next(kKeys)) {
    scores_tile<kRows, kKeys>(q, size, k, stride, ahead, s + key);
  }
  for (; key < num_keys; next(1)) scores_tile<kRows, 1>(q, size, k, stride, ahead, s + key);
}

// acc [kRows][W] at kUnits units of features += p [kRows][kDecodeBlock] v.
template <int kRows, int kUnits, class Element>
HWY_INLINE void values_tile(const float* HWY_RESTRICT p, const Element* v, int64_t stride,
                            int num_keys, Ahead& ahead, int size, float* HWY_RESTRICT acc) {
  const LaneTag d;
  const int unit = 2 * width();
  Vector sum[kRows][kUnits][2];
  for (int r = 0; r < kRows; ++r) {
    for (int u = 0; u < kUnits; ++u) {
      for (int half = 0; half < 2; ++half) {
        sum[r][u][half] = hn::LoadU(d, acc + r * size + u * unit + half * width());
      }
    }
  }
  for (int key = 0; key < num_keys; ++key, v += stride) {
#pragma GCC unroll 4
    for (int u = 0; u < kUnits; ++u) ahead.step(unit * static_cast<int>(sizeof(Element)));
    Vector weight[kRows];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) weight[r] = hn::Set(d, p[r * kDecodeBlock + key]);
#pragma GCC unroll 4
    for (int u = 0; u < kUnits; ++u) {
      const Vector low = load_half<0>(v + u * unit), high = load_half<1>(v + u * unit);
#pragma GCC unroll 4
      for (int r = 0; r < kRows; ++r) {
        sum[r][u][0] = hn::MulAdd(weight[r], low, sum[r][u][0]);
        sum[r][u][1] = hn::MulAdd(weight[r], high, sum[r][u][1]);
      }
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int u = 0; u < kUnits; ++u) {
      for (int half = 0; half < 2; ++half) {
        hn::StoreU(sum[r][u][half], d, acc + r * size + u * unit + half * width());
      }
    }
  }
}

template <int kRows, class Element>
void values_rows(const float* p, const Element* v, int64_t stride, int num_keys, Ahead& ahead,
                 int size, float* acc) {
  constexpr int kUnits = kRows == 3 ? 2 : 4 / kRows;
  const int unit = 2 * width();
  int i = 0;
  for (; i + kUnits * unit <= size; i += kUnits * unit) {
    values_tile<kRows, kUnits>(p, v + i, stride, num_keys, ahead, size, acc + i);
  }
  for (; i < size; i += unit) {
    values_tile<kRows, 1>(p, v + i, stride, num_keys, ahead, size, acc + i);
  }
}

}  // namespace
}  // namespace seer::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
