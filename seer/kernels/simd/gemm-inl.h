// Small f32 matrix products for one thread, for a .cc that is compiled once per Highway target.
//
//   c [m, n] (+)= a [m, k] b [k, n]     a by any two strides, so a transposed a is free
//
// Rows of a are broadcast, columns of b and c are vectors. A row of c is summed in the order of k,
// whatever m and n are: the result does not depend on how the caller cuts the work by rows.

#if defined(SEER_KERNELS_SIMD_GEMM_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef SEER_KERNELS_SIMD_GEMM_INL_H_
#undef SEER_KERNELS_SIMD_GEMM_INL_H_
#else
#define SEER_KERNELS_SIMD_GEMM_INL_H_
#endif

#include <hwy/highway.h>

#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace seer::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

struct Gemm {
  int64_t m, n, k;
  const float* a;
  int64_t a_row, a_col;  // strides in elements
  const float* b;
  int64_t b_row;
  float* c;
  int64_t c_row;
  bool accumulate;
};

// kRows rows of c, kVectors vectors wide, from row i and column j on.
template <int kRows, int kVectors, class D>
HWY_INLINE void gemm_tile(D d, const Gemm& g, int64_t i, int64_t j) {
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const float* a = g.a + i * g.a_row;
  const float* b = g.b + j;
  float* c = g.c + i * g.c_row + j;
  hn::Vec<D> sum[kRows][kVectors];
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = g.accumulate ? hn::LoadU(d, c + r * g.c_row + v * lanes) : hn::Zero(d);
    }
  }
  for (int64_t k = 0; k < g.k; ++k) {
    hn::Vec<D> row[kVectors];
    for (int v = 0; v < kVectors; ++v) row[v] = hn::LoadU(d, b + k * g.b_row + v * lanes);
    for (int r = 0; r < kRows; ++r) {
      const auto x = hn::Set(d, a[r * g.a_row + k * g.a_col]);
      for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(x, row[v], sum[r][v]);
    }
  }
  for (int r = 0; r < kRows; ++r) {
    for (int v = 0; v < kVectors; ++v) hn::StoreU(sum[r][v], d, c + r * g.c_row + v * lanes);
  }
}

// All rows of the columns from j on, kVectors vectors wide.
template <int kVectors, class D>
HWY_INLINE void gemm_columns(D d, const Gemm& g, int64_t j) {
  int64_t i = 0;
  for (; i + 6 <= g.m; i += 6) gemm_tile<6, kVectors>(d, g, i, j);
  for (; i + 2 <= g.m; i += 2) gemm_tile<2, kVectors>(d, g, i, j);
  for (; i < g.m; ++i) gemm_tile<1, kVectors>(d, g, i, j);
}

inline HWY_NOINLINE void gemm(const Gemm& g) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 4> d4;
  const hn::CappedTag<float, 1> d1;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const int64_t lanes4 = static_cast<int64_t>(hn::Lanes(d4));
  int64_t j = 0;
  for (; j + 2 * lanes <= g.n; j += 2 * lanes) gemm_columns<2>(d, g, j);
  for (; j + lanes <= g.n; j += lanes) gemm_columns<1>(d, g, j);
  for (; j + lanes4 <= g.n; j += lanes4) gemm_columns<1>(d4, g, j);
  for (; j < g.n; ++j) gemm_columns<1>(d1, g, j);
}

}  // namespace seer::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();
#endif
