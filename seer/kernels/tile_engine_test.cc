// Single steps of every tile engine, and the conversions of elements.

#include "seer/kernels/simd/tile_engine.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "seer/kernels/attention/testing/attention_engines.h"
#include "seer/kernels/simd/aligned_buffer.h"
#include "seer/kernels/simd/element.h"

namespace seer::kernels {
namespace {

TEST(TileEngine, WeightsAreAccurateOverTheWholeRange) {
  constexpr int kRows = 1000;
  for_each_engine(DType::bf16, [](const TileEngine& engine) {
    AlignedBuffer buffer(kRows * 16 * sizeof(float));
    float* x = buffer.as<float>();
    alignas(64) float lse2[16] = {};
    for (int i = 0; i < kRows * 16; ++i) x[i] = -140.f + 145.f * i / (kRows * 16);
    const std::vector<float> from(x, x + kRows * 16);
    engine.weights(1.f, lse2, 16, kRows, x);
    for (int i = 0; i < kRows * 16; ++i) {
      const double want = std::exp2(double(from[i]));
      // Below the smallest normal float only the absolute error counts.
      ASSERT_NEAR(x[i], want, std::max(3e-7 * want, 1.2e-38)) << engine.name << " " << from[i];
    }
  });
}

TEST(TileEngine, WeightsKeepNanAndInfinity) {
  for_each_engine(DType::bf16, [](const TileEngine& engine) {
    alignas(64) float x[16] = {NAN, -INFINITY, 0}, lse2[16] = {};
    engine.weights(1.f, lse2, 16, 1, x);
    EXPECT_TRUE(std::isnan(x[0])) << engine.name;
    EXPECT_EQ(x[1], 0.f) << engine.name;
    EXPECT_EQ(x[2], 1.f) << engine.name;
  });
}

// Rescaling is late on purpose; sum and result must not show it.
TEST(TileEngine, SoftmaxStepsAddUp) {
  for_each_engine(DType::bf16, [](const TileEngine& engine) {
    alignas(64) float m[16], l[16] = {}, alpha[16], row_max[16];
    std::fill_n(m, 16, -INFINITY);
    const float tops[] = {-3, 2, 9, 30, 31, 5};  // of the steps, in base 2
    double want = 0;
    for (const float top : tops) {
      AlignedBuffer buffer(16 * 16 * sizeof(float));
      float* s = buffer.as<float>();
      for (int i = 0; i < 16 * 16; ++i) s[i] = top - i / 16;
      for (int key = 0; key < 16; ++key) want += std::exp2(double(top - key));
      std::fill_n(row_max, 16, top);
      const float before = m[0];
      const bool moved = engine.softmax(1.f, row_max, 16, 16, s, m, l, alpha);
      EXPECT_EQ(moved, m[0] != before) << engine.name;
    }
    for (int i = 0; i < 16; ++i) {
      EXPECT_NEAR(m[i] + std::log2(l[i]), std::log2(want), 1e-5) << engine.name;
    }
  });
}

TEST(Element, EveryF16SurvivesTheWayThroughFloat) {
  for (int bits = 0; bits < 0x10000; ++bits) {
    const float x = float_from_f16(uint16_t(bits));
    if (std::isnan(x)) {
      EXPECT_TRUE(std::isnan(float_from_f16(f16_from_float(x))));
    } else {
      ASSERT_EQ(f16_from_float(x), bits);
    }
  }
}

TEST(Element, RoundsToNearestEven) {
  EXPECT_EQ(float_from_f16(f16_from_float(1.f + 0x1p-11f)), 1.f);
  EXPECT_EQ(float_from_f16(f16_from_float(1.f + 3 * 0x1p-11f)), 1.f + 0x1p-9f);
  EXPECT_EQ(float_from_f16(f16_from_float(65519.f)), 65504.f);
  EXPECT_EQ(float_from_f16(f16_from_float(65520.f)), INFINITY);
  EXPECT_EQ(float_from_f16(f16_from_float(0x1p-25f)), 0.f);
  EXPECT_EQ(float_from_f16(f16_from_float(-0x1.8p-25f)), -0x1p-24f);
  EXPECT_EQ(float_from_bf16(bf16_from_float(1.f + 0x1p-8f)), 1.f);
  EXPECT_EQ(float_from_bf16(bf16_from_float(1.f + 3 * 0x1p-8f)), 1.f + 0x1p-6f);
  EXPECT_TRUE(std::isnan(float_from_bf16(bf16_from_float(NAN))));
}

}  // namespace
}  // namespace seer::kernels
