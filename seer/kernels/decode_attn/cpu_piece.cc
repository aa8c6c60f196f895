#include "seer/kernels/decode_attn/cpu_piece.h"

#include "seer/kernels/decode_attn/cpu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "seer/kernels/decode_attn/cpu_piece.cc"
#include <hwy/foreach_target.h>
// foreach_target.h must come first.
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <type_traits>

#include "seer/kernels/decode_attn/cpu_products-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seer::kernels::HWY_NAMESPACE {
namespace {

void pack_query(DType dtype, int head_dim, const void* q, float factor, float* packed) {
  const LaneTag d;
  const int unit = 2 * width(), size = padded(head_dim);
  if (dtype == DType::bf16 && is_direct(dtype, head_dim)) {
    const auto* in = static_cast<const uint16_t*>(q);
    for (int i = 0; i < size; i += unit) {
      hn::StoreU(load_half<0>(in + i), d, packed + i);
      hn::StoreU(load_half<1>(in + i), d, packed + i + width());
    }
  } else {
    std::fill_n(packed, size, 0.f);
    widen(dtype, q, 0, head_dim, packed);
  }
  for (int i = 0; i < size; ++i) packed[i] *= factor;
}

void unpack(DType dtype, int head_dim, const float* acc, float* o) {
  if (dtype != DType::bf16 || !is_direct(dtype, head_dim)) {
    std::copy_n(acc, head_dim, o);
    return;
  }
  const int lanes = width();
  for (int i = 0; i < head_dim; ++i) {
    const int in_unit = i % (2 * lanes);
    o[i] = acc[i - in_unit + in_unit % 2 * lanes + in_unit / 2];
  }
}

// visit(std::integral_constant<int, n>, first row) with rows in groups of four, then the rest.
template <class Visit>
HWY_INLINE void in_groups(int rows, const Visit& visit) {
  int r = 0;
  for (; r + 4 <= rows; r += 4) visit(std::integral_constant<int, 4>(), r);
  switch (rows - r) {
    case 3: return visit(std::integral_constant<int, 3>(), r);
    case 2: return visit(std::integral_constant<int, 2>(), r);
    case 1: return visit(std::integral_constant<int, 1>(), r);
  }
}

// One step of the online softmax of a row: s becomes 2^(s - m), 0 where the row does not see the key.
void softmax_row(int begin, int end, float* s, float* m, float* l, float* acc, int size) {
  const LaneTag d;
  for (int i = 0; i < begin; ++i) s[i] = -INFINITY;
  for (int i = end; i < kDecodeBlock; ++i) s[i] = -INFINITY;
  float top = *m;
  for (int i = begin; i < end; ++i) top = s[i] > top ? s[i] : top;
  if (top > *m) {
    const float factor = *m == -INFINITY ? 0.f : std::exp2(*m - top);
    *m = top;
    *l *= factor;
    for (int i = 0; i < size; i += width()) {
      hn::StoreU(hn::Mul(hn::LoadU(d, acc + i), hn::Set(d, factor)), d, acc + i);
    }
  }
  // No key seen yet: avoid inf - inf.
  const auto offset = hn::Set(d, *m == -INFINITY ? 0.f : *m);
  auto sum = hn::Zero(d);
  for (int i = 0; i < kDecodeBlock; i += width()) {
    const auto p = exp2(hn::Sub(hn::LoadU(d, s + i), offset));
    hn::StoreU(p, d, s + i);
    sum = hn::Add(sum, p);
  }
  *l += hn::GetLane(hn::SumOfLanes(d, sum));
}

// A row of a piece that does not read the row's keys of a block takes part in it with weights of 0.
void softmax_rows(const DecodePiece& piece, int first, int num_keys, int size) {
  for (int r = 0; r < piece.rows; ++r) {
    const int begin = std::clamp(piece.begin[r] - first, 0, num_keys);
    const int end = std::clamp(piece.end[r] - first, begin, num_keys);
    softmax_row(begin, end, piece.s + r * kDecodeBlock, piece.m + r, piece.l + r,
                piece.acc + int64_t{r} * size, size);
  }
}

template <class Element>
void scores_block(const DecodePiece& piece, int size, const Element* k, int64_t stride,
                  int num_keys, Ahead& ahead) {
  Ahead nothing;
  in_groups(piece.rows, [&](auto rows, int r) {
    scores_rows<rows()>(piece.q + int64_t{r} * size, size, k, stride, num_keys,
                        r == 0 ? ahead : nothing, piece.s + r * kDecodeBlock);
  });
}

template <class Element>
void values_block(const DecodePiece& piece, int size, const Element* v, int64_t stride,
                  int num_keys, Ahead& ahead) {
  Ahead nothing;
  in_groups(piece.rows, [&](auto rows, int r) {
    values_rows<rows()>(piece.s + r * kDecodeBlock, v, stride, num_keys, r == 0 ? ahead : nothing,
                        size, piece.acc + int64_t{r} * size);
  });
}

template <class Element>
void attend_direct(DType dtype, const DecodePiece& piece, int size) {
  const auto *k = static_cast<const Element*>(piece.k), *v = static_cast<const Element*>(piece.v);
  for (int first = 0; first < piece.num_keys; first += kDecodeBlock) {
    const int num_keys = std::min(kDecodeBlock, piece.num_keys - first);
    const bool is_last = first + 2 * kDecodeBlock > piece.num_keys;
    Ahead values(dtype, v, piece.v_stride, size), next;
    if (!is_last) next = Ahead(dtype, k + kDecodeBlock * piece.k_stride, piece.k_stride, size);
    scores_block(piece, size, k, piece.k_stride, num_keys, values);
    softmax_rows(piece, first, num_keys, size);
    values_block(piece, size, v, piece.v_stride, num_keys, next);
    k += kDecodeBlock * piece.k_stride;
    v += kDecodeBlock * piece.v_stride;
  }
}

void attend_widened(DType dtype, int head_dim, const DecodePiece& piece, int size) {
  std::fill_n(piece.wide, int64_t{kDecodeBlock} * size, 0.f);
  const auto ahead = [&](const void* x, int64_t stride, int first) {
    if (first >= piece.num_keys) return Ahead();
    return Ahead(dtype, element_at(dtype, x, first * stride), stride, head_dim);
  };
  const auto widen_block = [&](const void* x, int64_t stride, int first, int num_keys) {
    for (int i = 0; i < num_keys; ++i) {
      widen(dtype, x, (first + i) * stride, head_dim, piece.wide + int64_t{i} * size);
    }
  };
  for (int first = 0; first < piece.num_keys; first += kDecodeBlock) {
    const int num_keys = std::min(kDecodeBlock, piece.num_keys - first);
    Ahead values = ahead(piece.v, piece.v_stride, first);
    Ahead next = ahead(piece.k, piece.k_stride, first + kDecodeBlock);
    widen_block(piece.k, piece.k_stride, first, num_keys);
    scores_block<float>(piece, size, piece.wide, size, num_keys, values);
    softmax_rows(piece, first, num_keys, size);
    widen_block(piece.v, piece.v_stride, first, num_keys);
    values_block<float>(piece, size, piece.wide, size, num_keys, next);
  }
}

void attend(DType dtype, int head_dim, const DecodePiece& piece) {
  const int size = padded(head_dim);
  std::fill_n(piece.m, piece.rows, -INFINITY);
  std::fill_n(piece.l, piece.rows, 0.f);
  std::fill_n(piece.acc, int64_t{piece.rows} * size, 0.f);
  if (!is_direct(dtype, head_dim)) {
    attend_widened(dtype, head_dim, piece, size);
  } else if (dtype == DType::f32) {
    attend_direct<float>(dtype, piece, size);
  } else {
    attend_direct<uint16_t>(dtype, piece, size);
  }
}

const DecodeKernels* make_decode_kernels() {
  static const DecodeKernels kernels = {.name = hwy::TargetName(HWY_TARGET),
                                        .padded = padded,
                                        .pack_query = pack_query,
                                        .attend = attend,
                                        .unpack = unpack};
  return &kernels;
}

}  // namespace
}  // namespace seer::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seer::kernels {

HWY_EXPORT(make_decode_kernels);
const DecodeKernels& best_decode_kernels() {
  return *HWY_DYNAMIC_DISPATCH(make_decode_kernels)();
}

}  // namespace seer::kernels
#endif
