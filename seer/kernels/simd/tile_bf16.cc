// The tile engine on bf16 dot products: vdpbf16ps multiplies 32 pairs of bf16 and adds to 16 f32
// sums.

#include "seer/kernels/simd/tile_engine.h"

#if defined(__x86_64__)

#include <hwy/base.h>
#include <immintrin.h>

#include <cmath>
#include <cstring>

// GCC 12 sees an uninitialised operand in its own intrinsics (its bug 105593).
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"

// The attributes come after every include, so that no inline function of another header is compiled
// for this instruction set. Every CPU with avx512bf16 has dq too.
HWY_PUSH_ATTRIBUTES("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16")
namespace seer::kernels {
namespace {

inline __m512bh load_pairs(const uint32_t* p) {
  return (__m512bh)_mm512_load_si512(p);
}
inline __m512bh broadcast_pair(uint32_t pair) {
  return (__m512bh)_mm512_set1_epi32(int(pair));
}

// Eight features of a row from d on, those that it has; zeros behind them.
inline __m128i load_eight(const uint16_t* row, int d, int head_dim) {
  if (d + 8 <= head_dim) return _mm_loadu_si128((const __m128i*)(row + d));
  return _mm_maskz_loadu_epi16(__mmask8((1 << (head_dim - d)) - 1), row + d);
}

// Four rows of eight bf16 (four words each) -> four words with one of each row, four times.
void pack_keys(DType, const void* rows, int64_t row_stride, int valid, int keys, int head_dim,
               void* packed) {
  const uint16_t* in = static_cast<const uint16_t*>(rows);
  float* out = static_cast<float*>(packed);
  for (int key = 0; key < keys; key += 4) {
    for (int d = 0; d < head_dim; d += 8, out += 16) {
      __m128 r[4];
      for (int i = 0; i < 4; ++i) {
        r[i] = key + i < valid ? (__m128)load_eight(in + (key + i) * row_stride, d, head_dim)
                               : _mm_setzero_ps();
      }
      _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
      for (int i = 0; i < 4; ++i) _mm_store_ps(out + 4 * i, r[i]);
    }
  }
}

// Two rows -> words of (even key, odd key), four features side by side.
void pack_values(DType, const void* rows, int64_t row_stride, int valid, int keys, int head_dim,
                 void* packed) {
  const uint16_t* in = static_cast<const uint16_t*>(rows);
  uint32_t* out = static_cast<uint32_t*>(packed);
  for (int key = 0; key < keys; key += 2) {
    for (int d = 0; d < head_dim; d += 8) {
      __m128i r[2];
      for (int i = 0; i < 2; ++i) {
        r[i] = key + i < valid ? load_eight(in + (key + i) * row_stride, d, head_dim)
                               : _mm_setzero_si128();
      }
      uint32_t* to = out + (d / 4 * (keys / 2) + key / 2) * 4;
      _mm_store_si128((__m128i*)to, _mm_unpacklo_epi16(r[0], r[1]));
      _mm_store_si128((__m128i*)(to + keys * 2), _mm_unpackhi_epi16(r[0], r[1]));
    }
  }
}

// Four lanes at a time, as pack_keys does with keys.
void pack_queries(DType, const void* const* rows, int lanes, int head_dim, void* packed) {
  float* out = static_cast<float*>(packed);
  for (int lane = 0; lane < lanes; lane += 4) {
    for (int d = 0; d < head_dim; d += 8) {
      __m128 r[4];
      for (int i = 0; i < 4; ++i) {
        const auto* row = static_cast<const uint16_t*>(rows[lane + i]);
        r[i] = row ? (__m128)load_eight(row, d, head_dim) : _mm_setzero_ps();
      }
      _MM_TRANSPOSE4_PS(r[0], r[1], r[2], r[3]);
      for (int i = 0; i < 4; ++i) _mm_store_ps(out + (d / 2 + i) * lanes + lane, r[i]);
    }
  }
}

// Adds to a register tile, rows times lanes, the products of `pairs` pairs of numbers: those of 16 lanes lie
// together, those of four rows too.
template <int kRows, int kVectors>
[[gnu::always_inline]] inline void add_products(const uint32_t* lanes, const uint32_t* rows,
                                                int pairs, __m512 (&sum)[kRows][kVectors]) {
#pragma GCC unroll 4
  for (int pair = 0; pair < pairs; ++pair) {
    __m512bh of_lanes[kVectors];
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      of_lanes[v] = load_pairs(lanes + 16 * (pair * kVectors + v));
    }
#pragma GCC unroll 16
    for (int r = 0; r < kRows; ++r) {
      const __m512bh of_row = broadcast_pair(rows[(r / 4 * pairs + pair) * 4 + r % 4]);
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v)
        sum[r][v] = _mm512_dpbf16_ps(sum[r][v], of_lanes[v], of_row);
    }
  }
}

// One register tile holds 4 * kGroups keys times 16 * kVectors queries.
template <int kVectors, int kGroups>
void scores_tile(const uint32_t* q, const uint32_t* k, int keys, int head_dim, float* s,
                 float* row_max) {
  constexpr int kLanes = 16 * kVectors;
  const int pairs = head_dim / 2;
  __m512 top[kVectors];
  for (int v = 0; v < kVectors; ++v) top[v] = _mm512_set1_ps(-INFINITY);
  for (int key = 0; key < keys; key += 4 * kGroups, k += 4 * kGroups * pairs) {
    __m512 sum[4 * kGroups][kVectors];
    for (auto& row : sum) {
      for (auto& x : row) x = _mm512_setzero_ps();
    }
    add_products(q, k, pairs, sum);
    for (int r = 0; r < 4 * kGroups; ++r) {
      for (int v = 0; v < kVectors; ++v) {
        _mm512_store_ps(s + (key + r) * kLanes + 16 * v, sum[r][v]);
        top[v] = _mm512_max_ps(top[v], sum[r][v]);
      }
    }
  }
  for (int v = 0; v < kVectors; ++v) _mm512_store_ps(row_max + 16 * v, top[v]);
}

void scores(const void* q, const void* k, int lanes, int keys, int head_dim, float* s,
            float* row_max) {
  const auto* queries = static_cast<const uint32_t*>(q);
  const auto* packed = static_cast<const uint32_t*>(k);
  // Sixteen sums in flight hide the latency of the dot product.
  switch (lanes) {
    case 16: return scores_tile<1, 4>(queries, packed, keys, head_dim, s, row_max);
    case 32: return scores_tile<2, 2>(queries, packed, keys, head_dim, s, row_max);
    case 48: return scores_tile<3, 1>(queries, packed, keys, head_dim, s, row_max);
    default: return scores_tile<4, 1>(queries, packed, keys, head_dim, s, row_max);
  }
}

// 2^x: the whole part by scalef, 2^[0, 1) by a polynomial of degree 4 (minimax, relative error
// 3e-6); 0 for -inf.
inline __m512 exp2(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC);
  __m512 y = _mm512_set1_ps(0.01342668513f);
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.05224247284f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.2412802054f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.6930448448f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(1.f));
  return _mm512_scalef_ps(y, x);
}

// Moves m where row_max has grown beyond it by more than 8: until then 2^(s - m) <= 2^8 loses
// nothing.
inline bool move_max(float scale_log2, const float* row_max, int lanes, float* m, float* l,
                     float* alpha) {
  bool moved = false;
  for (int i = 0; i < lanes; i += 16) {
    const __m512 old = _mm512_load_ps(m + i);
    const __m512 top = _mm512_mul_ps(_mm512_load_ps(row_max + i), _mm512_set1_ps(scale_log2));
    const __mmask16 grown =
        _mm512_cmp_ps_mask(top, _mm512_add_ps(old, _mm512_set1_ps(8.f)), _CMP_GT_OQ);
    const __m512 factor =
        _mm512_mask_mov_ps(_mm512_set1_ps(1.f), grown, exp2(_mm512_sub_ps(old, top)));
    _mm512_store_ps(m + i, _mm512_mask_mov_ps(old, grown, top));
    _mm512_store_ps(l + i, _mm512_mul_ps(_mm512_load_ps(l + i), factor));
    _mm512_store_ps(alpha + i, factor);
    moved |= grown != 0;
  }
  return moved;
}

// Rows 2i and 2i + 1 of s become row i of p, so p may overwrite s.
template <int kVectors>
void exponentials(float scale_log2, int keys, const float* m, float* s, float* l) {
  constexpr int kLanes = 16 * kVectors;
  // cvtne2 puts its second operand into the low half; this interleaves the halves.
  alignas(64) static constexpr auto kInterleave = [] {
    struct {
      uint16_t index[32];
    } table{};
    for (int i = 0; i < 32; ++i) table.index[i] = uint16_t(i / 2 + i % 2 * 16);
    return table;
  }();
  const __m512i interleave = _mm512_load_si512(kInterleave.index);
  const __m512 scale = _mm512_set1_ps(scale_log2);
  __m512 offset[kVectors], sum[kVectors];
  for (int v = 0; v < kVectors; ++v) {
    const __m512 top = _mm512_load_ps(m + 16 * v);
    // A lane that has seen no key: avoid inf - inf.
    const __mmask16 seen = _mm512_cmp_ps_mask(top, _mm512_set1_ps(-INFINITY), _CMP_NEQ_UQ);
    offset[v] = _mm512_maskz_mov_ps(seen, top);
    sum[v] = _mm512_load_ps(l + 16 * v);
  }
  for (int key = 0; key < keys; key += 2) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      const float* from = s + key * kLanes + 16 * v;
      const __m512 even = exp2(_mm512_fmsub_ps(_mm512_load_ps(from), scale, offset[v]));
      const __m512 odd = exp2(_mm512_fmsub_ps(_mm512_load_ps(from + kLanes), scale, offset[v]));
      sum[v] = _mm512_add_ps(sum[v], _mm512_add_ps(even, odd));
      const __m512i halves = (__m512i)_mm512_cvtne2ps_pbh(odd, even);
      _mm512_store_si512(s + key / 2 * kLanes + 16 * v,
                         _mm512_permutexvar_epi16(interleave, halves));
    }
  }
  for (int v = 0; v < kVectors; ++v) _mm512_store_ps(l + 16 * v, sum[v]);
}

bool softmax(float scale_log2, const float* row_max, int lanes, int keys, float* s, float* m,
             float* l, float* alpha) {
  const bool moved = move_max(scale_log2, row_max, lanes, m, l, alpha);
  switch (lanes) {
    case 16: exponentials<1>(scale_log2, keys, m, s, l); break;
    case 32: exponentials<2>(scale_log2, keys, m, s, l); break;
    case 48: exponentials<3>(scale_log2, keys, m, s, l); break;
    default: exponentials<4>(scale_log2, keys, m, s, l); break;
  }
  return moved;
}

// Features 4 * group .. 4 * (group + kGroups) of the output.
template <int kVectors, int kGroups>
inline void accumulate_tile(const uint32_t* p, const void* const* v, int num_blocks, int pairs,
                            int group, Blend blend, const float* alpha, float* acc) {
  constexpr int kLanes = 16 * kVectors;
  acc += group * 4 * kLanes;
  __m512 sum[4 * kGroups][kVectors];
  for (int r = 0; r < 4 * kGroups; ++r) {
    for (int i = 0; i < kVectors; ++i) {
      __m512 x = _mm512_setzero_ps();
      if (blend != Blend::set) x = _mm512_load_ps(acc + r * kLanes + 16 * i);
      if (blend == Blend::rescale) x = _mm512_mul_ps(x, _mm512_load_ps(alpha + 16 * i));
      sum[r][i] = x;
    }
  }
  for (int block = 0; block < num_blocks; ++block, p += pairs * kLanes) {
    const uint32_t* values = static_cast<const uint32_t*>(v[block]) + group * pairs * 4;
    add_products(p, values, pairs, sum);
  }
  for (int r = 0; r < 4 * kGroups; ++r) {
    for (int i = 0; i < kVectors; ++i) _mm512_store_ps(acc + r * kLanes + 16 * i, sum[r][i]);
  }
}

template <int kVectors, int kGroups>
void accumulate_all(const void* p, const void* const* v, int num_blocks, int block_keys,
                    int head_dim, Blend blend, const float* alpha, float* acc) {
  const auto* weights = static_cast<const uint32_t*>(p);
  const int groups = head_dim / 4, pairs = block_keys / 2;
  int g = 0;
  for (; g + kGroups <= groups; g += kGroups) {
    accumulate_tile<kVectors, kGroups>(weights, v, num_blocks, pairs, g, blend, alpha, acc);
  }
  for (; g < groups; ++g) {
    accumulate_tile<kVectors, 1>(weights, v, num_blocks, pairs, g, blend, alpha, acc);
  }
}

void accumulate(const void* p, const void* const* v, int num_blocks, int block_keys, int lanes,
                int head_dim, Blend blend, const float* alpha, float* acc) {
  switch (lanes) {
    case 16: return accumulate_all<1, 4>(p, v, num_blocks, block_keys, head_dim, blend, alpha, acc);
    case 32: return accumulate_all<2, 2>(p, v, num_blocks, block_keys, head_dim, blend, alpha, acc);
    case 48: return accumulate_all<3, 1>(p, v, num_blocks, block_keys, head_dim, blend, alpha, acc);
    default: return accumulate_all<4, 1>(p, v, num_blocks, block_keys, head_dim, blend, alpha, acc);
  }
}

}  // namespace
}  // namespace seer::kernels
HWY_POP_ATTRIBUTES

namespace seer::kernels {

const TileEngine* bf16_tile_engine() {
  // Masks, results and map weights are f32 in both engines.
  static const TileEngine engine = [] {
    TileEngine e = f32_tile_engine();
    e.name = "AVX512_BF16";
    e.element_bytes = 2;
    e.pack_keys = pack_keys;
    e.pack_values = pack_values;
    e.pack_queries = pack_queries;
    e.scores = scores;
    e.softmax = softmax;
    e.accumulate = accumulate;
    return e;
  }();
  return &engine;
}

}  // namespace seer::kernels

#else

namespace seer::kernels {
const TileEngine* bf16_tile_engine() {
  return nullptr;
}
}  // namespace seer::kernels

#endif
