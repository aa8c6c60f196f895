// The tile engine in f32 arithmetic, for every dtype: compiled once for each instruction set.

#include "seer/kernels/simd/tile_engine.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "seer/kernels/simd/tile_f32.cc"
#include <hwy/foreach_target.h>
// foreach_target.h must come first.
#include <hwy/highway.h>

#include <cmath>

#include "seer/kernels/simd/tile_pack-inl.h"
#include "seer/kernels/simd/tile_softmax-inl.h"

HWY_BEFORE_NAMESPACE();
namespace seer::kernels::HWY_NAMESPACE {

// Vectors of queries times groups of four keys (or features) whose sums stay in registers. 16 sums
// with 32 registers, 12 with 16.
#if HWY_TARGET == HWY_AVX3
constexpr int kMostVectors = 4;
#else
constexpr int kMostVectors = 3;
#endif

// Four keys against kVectors vectors of queries, whose first lane `q` and `s` point at.
template <int kVectors>
HWY_INLINE void scores_tile(const float* HWY_RESTRICT q, const float* HWY_RESTRICT k, int lanes,
                            int keys, int head_dim, float* HWY_RESTRICT s, float* row_max) {
  const LaneTag d;
  const int width = static_cast<int>(hn::Lanes(d));
  Vector top[kVectors];
  for (auto& x : top) x = hn::Set(d, -INFINITY);
  for (int key = 0; key < keys; key += 4, k += 4 * head_dim) {
    Vector sum[4][kVectors];
    for (auto& row : sum) {
      for (auto& x : row) x = hn::Zero(d);
    }
    const float* HWY_RESTRICT from = q;
#pragma GCC unroll 4
    for (int i = 0; i < head_dim; ++i, from += lanes) {
      Vector queries[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) queries[v] = hn::Load(d, from + width * v);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        const Vector one_key = hn::Set(d, k[i * 4 + r]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sum[r][v] = hn::MulAdd(queries[v], one_key, sum[r][v]);
      }
    }
    for (int r = 0; r < 4; ++r) {
      for (int v = 0; v < kVectors; ++v) {
        hn::Store(sum[r][v], d, s + (key + r) * lanes + width * v);
        top[v] = hn::Max(top[v], sum[r][v]);
      }
    }
  }
  for (int v = 0; v < kVectors; ++v) hn::Store(top[v], d, row_max + width * v);
}

void scores(const void* q, const void* k, int lanes, int keys, int head_dim, float* s,
            float* row_max) {
  const auto* queries = static_cast<const float*>(q);
  const auto* packed = static_cast<const float*>(k);
  const int width = static_cast<int>(hn::Lanes(LaneTag()));
  int i = 0;
  for (; i + kMostVectors * width <= lanes; i += kMostVectors * width) {
    scores_tile<kMostVectors>(queries + i, packed, lanes, keys, head_dim, s + i, row_max + i);
  }
  for (; i + 2 * width <= lanes; i += 2 * width) {
    scores_tile<2>(queries + i, packed, lanes, keys, head_dim, s + i, row_max + i);
  }
  for (; i < lanes; i += width) {
    scores_tile<1>(queries + i, packed, lanes, keys, head_dim, s + i, row_max + i);
  }
}

// Four features of the output, for kVectors vectors of queries.
template <int kVectors>
HWY_INLINE void accumulate_tile(const float* HWY_RESTRICT p, const void* const* v, int num_blocks,
                                int block_keys, int lanes, int group, Blend blend,
                                const float* HWY_RESTRICT alpha, float* HWY_RESTRICT acc) {
  const LaneTag d;
  const int width = static_cast<int>(hn::Lanes(d));
  Vector sum[4][kVectors];
  for (int r = 0; r < 4; ++r) {
    for (int i = 0; i < kVectors; ++i) {
      Vector x = hn::Zero(d);
      if (blend != Blend::set) x = hn::Load(d, acc + r * lanes + width * i);
      if (blend == Blend::rescale) x = hn::Mul(x, hn::Load(d, alpha + width * i));
      sum[r][i] = x;
    }
  }
  for (int block = 0; block < num_blocks; ++block) {
    const float* HWY_RESTRICT values = static_cast<const float*>(v[block]) + group * block_keys * 4;
#pragma GCC unroll 4
    for (int key = 0; key < block_keys; ++key, p += lanes) {
      Vector weights[kVectors];
#pragma GCC unroll 4
      for (int i = 0; i < kVectors; ++i) weights[i] = hn::Load(d, p + width * i);
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) {
        const Vector feature = hn::Set(d, values[key * 4 + r]);
#pragma GCC unroll 4
        for (int i = 0; i < kVectors; ++i) {
          sum[r][i] = hn::MulAdd(weights[i], feature, sum[r][i]);
        }
      }
    }
  }
  for (int r = 0; r < 4; ++r) {
    for (int i = 0; i < kVectors; ++i) hn::Store(sum[r][i], d, acc + r * lanes + width * i);
  }
}

void accumulate(const void* p, const void* const* v, int num_blocks, int block_keys, int lanes,
                int head_dim, Blend blend, const float* alpha, float* acc) {
  const auto* weights = static_cast<const float*>(p);
  const int width = static_cast<int>(hn::Lanes(LaneTag()));
  for (int g = 0; g < head_dim / 4; ++g) {
    float* to = acc + g * 4 * lanes;
    int i = 0;
    for (; i + kMostVectors * width <= lanes; i += kMostVectors * width) {
      accumulate_tile<kMostVectors>(weights + i, v, num_blocks, block_keys, lanes, g, blend,
                                    alpha + i, to + i);
    }
    for (; i + 2 * width <= lanes; i += 2 * width) {
      accumulate_tile<2>(weights + i, v, num_blocks, block_keys, lanes, g, blend, alpha + i,
                         to + i);
    }
    for (; i < lanes; i += width) {
      accumulate_tile<1>(weights + i, v, num_blocks, block_keys, lanes, g, blend, alpha + i,
                         to + i);
    }
  }
}

const TileEngine* make_engine() {
  static const TileEngine engine = {
      .name = hwy::TargetName(HWY_TARGET),
      .element_bytes = 4,
      .pack_keys = pack_keys,
      .pack_values = pack_values,
      .pack_queries = pack_queries,
      .scores = scores,
      .mask = mask,
      .softmax = softmax,
      .accumulate = accumulate,
      .finish = finish,
      .weights = weights,
  };
  return &engine;
}

}  // namespace seer::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace seer::kernels {

HWY_EXPORT(make_engine);
const TileEngine& f32_tile_engine() {
  return *HWY_DYNAMIC_DISPATCH(make_engine)();
}

}  // namespace seer::kernels
#endif
