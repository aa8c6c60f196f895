// How the f32 tile engine reads and writes rows: conversion to and from f32, and the packed
// layouts. Included once per instruction set.

#if defined(SEER_TILE_PACK_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEER_TILE_PACK_INL_H_
#undef SEER_TILE_PACK_INL_H_
#else
#define SEER_TILE_PACK_INL_H_
#endif

#include <hwy/highway.h>

#include <algorithm>
#include <cmath>

#include "seer/kernels/simd/element.h"
#include "seer/kernels/simd/exp2-inl.h"
#include "seer/kernels/simd/tile_engine.h"

HWY_BEFORE_NAMESPACE();
namespace seer::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Tiles are padded to 16 lanes (LaneTag), rows to 8 features: no vector may be longer than what it
// loads.
using RowTag = hn::CappedTag<float, 8>;

// Highway 1.0.3 converts f16 with the CPU's instructions only from AVX2 on.
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3
constexpr bool kHasF16 = true;
#else
constexpr bool kHasF16 = false;
#endif

// One row of n features as f32, zeros up to padded_head_dim(n): the row itself where it is that,
// `buffer` otherwise; zeros for a null row.
HWY_INLINE const float* load_row(DType dtype, const void* row, int n, float* HWY_RESTRICT buffer) {
  const RowTag d;
  const hn::Rebind<uint16_t, RowTag> half;
  const int width = static_cast<int>(hn::Lanes(d)), size = padded_head_dim(n);
  if (row && dtype == DType::f32 && n == size) return static_cast<const float*>(row);
  int i = 0;
  if (row && dtype == DType::f32) {
    std::copy_n(static_cast<const float*>(row), n, buffer);
    i = n;
  } else if (row && (dtype == DType::bf16 || kHasF16)) {
    const auto* in = static_cast<const uint16_t*>(row);
    for (; i + width <= n; i += width) {
      const auto bits = hn::LoadU(half, in + i);
      if (dtype == DType::bf16) {
        const auto wide = hn::PromoteTo(hn::Rebind<uint32_t, RowTag>(), bits);
        hn::StoreU(hn::BitCast(d, hn::ShiftLeft<16>(wide)), d, buffer + i);
      } else {
        const hn::Rebind<hwy::float16_t, RowTag> f16;
        hn::StoreU(hn::PromoteTo(d, hn::BitCast(f16, bits)), d, buffer + i);
      }
    }
  }
  for (; row && i < n; ++i) buffer[i] = load_element(dtype, row, i);
  std::fill(buffer + i, buffer + size, 0.f);
  return buffer;
}

inline const void* row_at(DType dtype, const void* rows, int64_t row_stride, int i, int valid) {
  return i < valid ? element_at(dtype, rows, i * row_stride) : nullptr;
}

// Feature i of four rows goes, side by side, to out[i * stride].
HWY_INLINE void interleave(const float* const row[4], int n, int64_t stride,
                           float* HWY_RESTRICT out) {
  for (int i = 0; i < n; ++i) {
    for (int r = 0; r < 4; ++r) out[i * stride + r] = row[r][i];
  }
}

void pack_keys(DType dtype, const void* rows, int64_t row_stride, int valid, int keys, int head_dim,
               void* packed) {
  float* out = static_cast<float*>(packed);
  float buffer[4][kMaxHeadDim];
  const int size = padded_head_dim(head_dim);
  for (int key = 0; key < keys; key += 4, out += 4 * size) {
    const float* row[4];
    for (int r = 0; r < 4; ++r) {
      row[r] =
          load_row(dtype, row_at(dtype, rows, row_stride, key + r, valid), head_dim, buffer[r]);
    }
    interleave(row, size, 4, out);
  }
}

void pack_values(DType dtype, const void* rows, int64_t row_stride, int valid, int keys,
                 int head_dim, void* packed) {
  float* out = static_cast<float*>(packed);
  float buffer[kMaxHeadDim];
  for (int key = 0; key < keys; ++key) {
    const float* row =
        load_row(dtype, row_at(dtype, rows, row_stride, key, valid), head_dim, buffer);
    for (int g = 0; g < padded_head_dim(head_dim) / 4; ++g) {
      for (int i = 0; i < 4; ++i) out[(g * keys + key) * 4 + i] = row[4 * g + i];
    }
  }
}

void pack_queries(DType dtype, const void* const* rows, int lanes, int head_dim, void* packed) {
  float* out = static_cast<float*>(packed);
  float buffer[4][kMaxHeadDim];
  for (int lane = 0; lane < lanes; lane += 4) {
    const float* row[4];
    for (int r = 0; r < 4; ++r) row[r] = load_row(dtype, rows[lane + r], head_dim, buffer[r]);
    interleave(row, padded_head_dim(head_dim), lanes, out + lane);
  }
}

// One vector rounded to nearest even, as 16-bit elements.
HWY_INLINE void store_half(DType dtype, Vector x, uint16_t* out) {
  const LaneTag d;
  const hn::RebindToUnsigned<LaneTag> bits_tag;
  const hn::Rebind<uint16_t, LaneTag> half;
  if (dtype == DType::bf16) {
    const auto bits = hn::BitCast(bits_tag, x);
    const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(bits_tag, 1));
    const auto rounded = hn::Add(hn::Add(bits, hn::Set(bits_tag, 0x7fff)), odd);
    const auto quiet = hn::Or(bits, hn::Set(bits_tag, 0x400000));
    const auto is_nan = hn::RebindMask(bits_tag, hn::IsNaN(x));
    const auto top = hn::ShiftRight<16>(hn::IfThenElse(is_nan, quiet, rounded));
    hn::StoreU(hn::DemoteTo(half, hn::BitCast(hn::RebindToSigned<LaneTag>(), top)), half, out);
  } else if (kHasF16) {
    const hn::Rebind<hwy::float16_t, LaneTag> f16;
    hn::StoreU(hn::BitCast(half, hn::DemoteTo(f16, x)), half, out);
  } else {
    HWY_ALIGN float lanes[HWY_MAX_BYTES / sizeof(float)];
    hn::Store(x, d, lanes);
    for (size_t i = 0; i < hn::Lanes(d); ++i) out[i] = f16_from_float(lanes[i]);
  }
}

template <class Element>
HWY_INLINE void scatter(const Element* columns, int num_columns, int valid, int d, void* const* o) {
  for (int lane = 0; lane < valid; ++lane) {
    Element* to = static_cast<Element*>(o[lane]) + d;
    for (int i = 0; i < num_columns; ++i) to[i] = columns[i * kTileLanes + lane];
  }
}

void finish(DType dtype, const float* acc, const float* m, const float* l, int lanes, int valid,
            int head_dim, void* const* o, float* const* lse) {
  const LaneTag tag;
  const int width = static_cast<int>(hn::Lanes(tag));
  HWY_ALIGN float inverse[kTileLanes];
  for (int i = 0; i < lanes; ++i) inverse[i] = 1.f / l[i];
  HWY_ALIGN float wide[8 * kTileLanes];
  HWY_ALIGN uint16_t narrow[8 * kTileLanes];
  for (int d = 0; d < head_dim; d += 8) {
    for (int i = 0; i < 8; ++i) {
      for (int lane = 0; lane < lanes; lane += width) {
        // l is 0 only where no key was seen; a NaN stays a NaN.
        const auto unseen = hn::Eq(hn::Load(tag, l + lane), hn::Zero(tag));
        const auto x = hn::IfThenZeroElse(
            unseen,
            hn::Mul(hn::Load(tag, acc + (d + i) * lanes + lane), hn::Load(tag, inverse + lane)));
        if (dtype == DType::f32) {
          hn::Store(x, tag, wide + i * kTileLanes + lane);
        } else {
          store_half(dtype, x, narrow + i * kTileLanes + lane);
        }
      }
    }
    const int columns = std::min(8, head_dim - d);
    dtype == DType::f32 ? scatter(wide, columns, valid, d, o)
                        : scatter(narrow, columns, valid, d, o);
  }
  for (int lane = 0; lane < valid; ++lane) {
    *lse[lane] =
        l[lane] == 0 ? -INFINITY : static_cast<float>(M_LN2) * (m[lane] + std::log2(l[lane]));
  }
}

}  // namespace seer::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
